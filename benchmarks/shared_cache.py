"""The remote beside plain obstore, and what a cached run on a second machine costs.

    python -m benchmarks.shared_cache [--source FOLDER] [--rounds 5] [--quick]

A throw-away S3 server on the loopback address holds the bucket, in a process of its own. It serves
one request at a time, and is as busy for the one as for the other.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from artifacts import artifact, keys, records, upkeep
from benchmarks.clock import machine

FILES, MIB = 4, 16  # of an artifact, and in each
GOAL, REQUESTS = 0.8, 20
FIRST = "the first run of all, which computes everything"
RUN = ("train", "--epochs", "1", "--json")


def main() -> None:
    """Print rates, seconds and requests, as medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    rounds = 1 if asked.quick else asked.rounds
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"PREFECT_HOME": f"{folder}/prefect"}
        if asked.source:
            os.environ["RETRAIN_SOURCE"] = str(asked.source.resolve())
        with _s3(folder) as log:
            _rates(folder, rounds)
            _runs(folder, rounds, log)


@contextmanager
def _s3(folder: Path) -> Iterator[Path]:
    """Serve a bucket that this process and its children use; yields the log of its requests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log, address = folder / "s3.log", f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fixtures.s3", str(port)], stdout=file, stderr=file
        )
    try:
        for _ in range(600):
            try:
                httpx.put(f"{address}/bucket", timeout=5).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "RETRAIN_REMOTE": "s3://bucket/team",
        }
        yield log
    finally:
        server.kill()
        server.wait()


def _requests(log: Path) -> int:
    return log.read_text().count(" HTTP/1.1")


# Rates


def _rates(folder: Path, rounds: int) -> None:
    """Print MB/s of `cache push` and `cache pull`, which also compare, beside put and get."""
    rates = defaultdict(list)
    for turn in range(rounds + 1):  # the first warms up
        files = folder / "files"
        files.mkdir(exist_ok=True)
        for number in range(FILES):
            content = np.random.default_rng([turn, number]).bytes(MIB * 2**20)
            (files / f"{number}.bin").write_bytes(content)
        for name, seconds in (_ours(folder, files, turn) | _plain(files, folder / "got")).items():
            rates[name].append(FILES * MIB * 2**20 / 1e6 / seconds)
    print(f"\n{FILES} files of {MIB} MiB, {rounds} rounds, MB/s")
    for way in ("push", "pull"):
        ours, plain = (median(rates[f"{whose} {way}"][1:]) for whose in ("ours", "plain"))
        print(f"{way}: {ours:.0f}; obstore {plain:.0f}; {ours / plain:.2f} (goal: {GOAL})")


def _ours(folder: Path, files: Path, turn: int) -> dict[str, float]:
    """Publish the files on machine A, push them, and pull them on machine B."""
    os.environ["RETRAIN_DATA"] = str(folder / "rates-a")
    with artifact.draft("bytes") as new:
        for each in files.iterdir():
            (new.folder / each.name).write_bytes(each.read_bytes())
    components = {"step": "make", "turn": str(turn)}
    key = keys.key_of(components, "all")
    records.write_components(key, components)
    about = {"step": "make", "group": "all", "flow_run": "", "task_run": "", "at": "", "why": None}
    records.write(key, replace(new.artifact, metadata=about | {"seconds": 0.0}))
    start = time.perf_counter()
    written = upkeep.push()
    pushed = time.perf_counter()
    os.environ["RETRAIN_DATA"] = str(folder / "rates-b")
    if (written, upkeep.pull()) != ((1, 1), 1):
        raise RuntimeError(f"{written} records and artifacts were written, instead of one each")
    return {"ours push": pushed - start, "ours pull": time.perf_counter() - pushed}


def _plain(files: Path, got: Path) -> dict[str, float]:
    """Put and get the files one after the other."""
    import obstore
    from obstore.store import from_url

    got.mkdir(exist_ok=True)
    store = from_url("s3://bucket/plain", client_options={"allow_http": True, "timeout": "120s"})
    start = time.perf_counter()
    for each in files.iterdir():
        obstore.put(store, each.name, each)
    put = time.perf_counter()
    for each in files.iterdir():
        (got / each.name).write_bytes(obstore.get(store, each.name).bytes())
    return {"plain push": put - start, "plain pull": time.perf_counter() - put}


# Runs


def _runs(folder: Path, rounds: int, log: Path) -> None:
    """Print seconds and requests of cached runs, without a remote, with one, and elsewhere."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    seconds, requests = defaultdict(list), defaultdict(list)
    with prefect_test_harness(server_startup_timeout=120):
        environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
        alone = {name: value for name, value in environment.items() if name != "RETRAIN_REMOTE"}

        def run(name: str, data: str, environment: dict[str, str]) -> None:
            before, start = _requests(log), time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "flows", *RUN, "--data", str(folder / data)],
                env=environment,
                check=True,
                capture_output=True,
            )
            seconds[name].append(time.perf_counter() - start)
            requests[name].append(_requests(log) - before)
            steps = json.loads(done.stdout)["steps"]
            if name not in {"", FIRST} and set(steps.values()) != {"cached"}:
                raise RuntimeError(f"{name}: {steps}")

        run(FIRST, "a", environment)
        run("", "alone", alone)
        for turn in range(rounds):
            run("without a remote", "alone", alone)
            run("on the machine that trained", "a", environment)
            run("first on a second machine", f"b{turn}", environment)
            run("again on the second machine", f"b{turn}", environment)
    local = median(seconds["without a remote"])
    print(f"\nCached runs, {rounds} rounds: a whole process, with a Prefect server that runs")
    print(f"{FIRST}: {requests[FIRST][0]} requests")
    for name in seconds:
        if name not in {"", FIRST}:
            took = median(seconds[name])
            asked = f"{median(requests[name]):.0f} requests (goal: under {REQUESTS})"
            print(f"{name}: {took:.2f} s, {took / local:.2f} times; {asked}")
    brought = sum(
        path.stat().st_size for path in (folder / "b0" / "cache").rglob("*") if path.is_file()
    )
    print(f"brought to the second machine's cache: {brought / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
