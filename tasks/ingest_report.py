"""The report of an ingest: what came in, what was refused and why, and how it looks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.artifact import Artifact
from artifacts.outcomes import outcomes
from reporting.contents import Contents
from reporting.report import Run
from tasks.batch_names import names_of
from tasks.intake import LISTED, PICTURED, Intake

if TYPE_CHECKING:
    import numpy as np

WHAT_COUNTS = (
    "outcome",
    "why",
    "note",
    "rows",
    "counts",
    "usual_shares",
    "class_aucs",
    "contradicted",
    "auc",
    "p_value",
)


def report(
    run: Run,
    dataset: str,
    taken: Sequence[Intake],
    results: Mapping[str, Artifact],
    waiting: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the report of an ingest, and return its figures, JSON-ready.

    Args:
        run: the run.
        dataset: its name.
        taken: what became of each delivery.
        results: of the steps by name; `check <batch>` of each batch that was looked at.
        waiting: deliveries that are still being written.
    """
    manifest = results["manifest"]
    batches = [_about(intake, manifest, results) for intake in taken]
    summary = {
        "dataset": dataset,
        "batch": batches[0]["batch"] if len(batches) == 1 else None,
        "accepted": sum(batch["accepted"] for batch in batches),
        "recent_test": sum(batch["recent_test"] for batch in batches),
        "refused": [row for batch in batches for row in batch["refused"]],
        "refused_rows": sum(batch["refused_rows"] for batch in batches),
        "batches": batches,
        "waiting": list(waiting),
    }
    pictures = _pictures(run.folder, taken, results)
    done = outcomes(results, str(run.flow_run_id))
    return run.report(Contents(summary=summary, outcomes=done, pictures=pictures, kind="ingest"))


def _about(intake: Intake, manifest: Artifact, results: Mapping[str, Artifact]) -> dict[str, Any]:
    about: dict[str, Any] = {
        "delivery": intake.delivery,
        "batch": intake.batch.name if intake.batch else None,
        "accepted": 0,
        "recent_test": 0,
        "refused": list(intake.refused),
        "refused_rows": intake.refused_rows,
        "check": None,
        "pictured": [_digest(image) for image, _ in intake.pictures],
    }
    if intake.batch is None:
        return about
    if found := results.get(f"check {intake.batch.name}"):
        check = found.read_json("check.json")
        about["check"] = {name: check[name] for name in WHAT_COUNTS}
    if not intake.is_new:
        return about
    parts = manifest.read_json("manifest.json")["parts"]
    mine = [part for part in parts if part["digest"] == intake.batch.digest]
    about["accepted"] = sum(part["rows"] for part in mine)
    about["recent_test"] = sum(part["rows"] for part in mine if part["split"] == "recent")
    left_out = _left_out(manifest, intake.batch.digest)
    about["refused"] = (about["refused"] + left_out)[:LISTED]
    about["refused_rows"] += manifest.metadata["left_out"].get(intake.batch.digest, 0)
    return about


def _digest(image: "np.ndarray") -> str:
    """Return the digest of a refused row that the report shows, by which it can be erased."""
    from classifier.data.digests import row_digests

    return str(row_digests(image[None])[0].tobytes().hex())


def _left_out(manifest: Artifact, digest: str) -> list[dict[str, str]]:
    """Return the first LISTED good rows of a batch that do not count, and why."""
    from classifier.data.inputs.wording import shown

    reasons = manifest.metadata["reasons"].get(digest, {})
    if not reasons:
        return []
    with names_of(digest).open(encoding="utf-8") as file:
        return [
            {"what": shown(json.loads(line)), "reason": reasons[str(row)]}
            for row, line in enumerate(file)
            if str(row) in reasons
        ]


def _pictures(
    folder: Path, taken: Sequence[Intake], results: Mapping[str, Artifact]
) -> dict[str, Path]:
    import shutil

    from classifier.evaluation import figures

    found: dict[str, Path] = {}
    for number, intake in enumerate(taken):
        name = intake.batch.name if intake.batch else "no batch"
        if checked := results.get(f"check {name}"):
            for file, title in (("means", "Mean images"), ("drifted", "Rows that drift most")):
                source = checked.path / f"{file}.png"
                if source.exists():
                    found[f"{title} of {name}"] = folder / f"{file}-{number}.png"
                    shutil.copyfile(source, found[f"{title} of {name}"])
        if intake.pictures:
            shown = intake.pictures[:PICTURED]
            images = [image.astype("float32") / 255 for image, _ in shown]
            drawing = figures.titled_grid(images, [reason for _, reason in shown])
            found[f"Refused rows of {name}"] = folder / f"refused-{number}.png"
            figures.save(drawing, found[f"Refused rows of {name}"])
    return found
