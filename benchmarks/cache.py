"""What a large cache costs: a cached run, and `cache list`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from artifacts import records
from artifacts.artifact import find_damage
from benchmarks.clock import Row, interleaved

RECORDS = 10_000
STEPS = 5  # of a run


def rows(folder: Path, *, quick: bool) -> Iterator[Row]:
    """The same run in a small cache and in one that has been used for years."""
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"PREFECT_HOME": f"{name}/prefect", "RETRAIN_SOURCE": str(folder)}
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
        from prefect.testing.utilities import prefect_test_harness

        with (
            prefect_test_harness(server_startup_timeout=120),
            temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # a second a flow
        ):
            yield from _rows(Path(name), 2 if quick else 15)


def _rows(folder: Path, repeats: int) -> Iterator[Row]:
    from flows.parameters import Overrides
    from flows.train import train

    small, large = folder / "small", folder / "large"

    def run(root: Path) -> None:
        os.environ["RETRAIN_DATA"] = str(root)
        train(overrides=Overrides(epochs=1))

    run(small)
    shutil.copytree(small, large)
    _fill(large)
    run(large)  # looks at the copies once
    seconds = interleaved({"ours": lambda: run(large), "peer": lambda: run(small)}, repeats)
    yield Row(
        what=f"cached run with {RECORDS:,} records",
        ours=1000 * seconds["ours"],
        peer=1000 * seconds["peer"],
        peer_is="with 5 records",
        unit="ms",
        goal="at most 1.1",
        clock="one call in a warm process, server already running, no heartbeat",
    )

    def listing(root: Path) -> None:
        command = [sys.executable, "-m", "flows", "cache", "list", "--json"]
        environment = os.environ | {"RETRAIN_DATA": str(root)}
        subprocess.run(command, env=environment, check=True, capture_output=True)

    seconds = interleaved({"ours": lambda: listing(large), "peer": lambda: listing(small)}, repeats)
    yield Row(
        what=f"`cache list` of {RECORDS:,} records",
        ours=seconds["ours"],
        peer=seconds["peer"],
        peer_is="of 5 records",
        unit="s",
        goal="at most 1 s",
        clock="from start to exit of python",
    )

    os.environ["RETRAIN_DATA"] = str(small)
    made = [record.artifact for record in records.everything()]

    def check(*, thorough: bool) -> None:
        for artifact in made:
            if find_damage(artifact, thorough=thorough):
                raise RuntimeError(f"{artifact} is damaged.")

    found = interleaved(
        {"ours": lambda: check(thorough=False), "peer": lambda: check(thorough=True)}, repeats
    )
    yield Row(
        what="checking the five artifacts of a cached run",
        ours=1000 * found["ours"],
        peer=1000 * found["peer"],
        peer_is=f"hashing all {sum(artifact.size for artifact in made) / 1e6:.0f} MB",
        unit="ms",
        goal="",
        clock="all five, files in the page cache",
    )


def _fill(root: Path) -> None:
    """Ten thousand records of artifacts of one small file each, and the runs that used them."""
    os.environ["RETRAIN_DATA"] = str(root)
    pattern = next(record for record in records.everything() if record.step == "train")
    content = records.path_of(pattern.key).read_text()
    components = json.dumps(pattern.components())
    for run in range(RECORDS // STEPS):
        timeline = []
        for step in range(STEPS):
            digest = f"{run * STEPS + step:064x}"
            place = root / "cache" / "models" / digest
            place.mkdir()
            (place / "model.json").write_text("{}")
            place.with_suffix(".json").write_text("{}")
            key = f"train/mnist/{digest}"
            changed = content.replace(pattern.key, key).replace(pattern.artifact.digest, digest)
            records.path_of(key).write_text(changed)
            records.components_path(key).write_text(components)
            timeline.append({"step": "train", "artifact": f"models/{digest}"})
        report = root / "reports" / f"2026{run // 28 % 12 + 1:02}{run % 28 + 1:02}-000000-{run:08x}"
        report.mkdir()
        (report / "report.json").write_text(json.dumps({"timeline": timeline}))
