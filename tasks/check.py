"""Check: a look at a batch of new data before anything is trained on it."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from artifacts import keys, records
from artifacts.artifact import Artifact, find_damage
from artifacts.locks import shared_lock
from artifacts.step import draft
from classifier.errors import InputError
from classifier.training.recipe import check_fields
from registry import data, log, sharing
from registry.data import Batch
from tasks.parts import open_split, parts_of
from tasks.settings import setting
from tasks.step import DATASET, step

if TYPE_CHECKING:
    import numpy as np

MOST_ROWS = 5_000  # of either side, whose features are compared
SHOWN = 20  # rows that drift most


@dataclass(frozen=True, kw_only=True)
class Drift:
    """When a batch raises an alarm."""

    alarms_a_year: float = setting(1.0, "False drift alarms that a year may have", gt=0, le=1000)
    checks_a_year: float = setting(52.0, "Batches that are checked in a year", gt=0, le=100_000)
    stop: bool = setting(False, "Stop at drift as at broken data")

    def __post_init__(self) -> None:
        check_fields(self, "--drift.")


@step(kind="checks", code=DATASET, ignored=("device", "classes"))
def check(
    batch: Artifact,
    base: Artifact,
    model: Artifact | None,
    trained_on: Artifact | None,
    parts: list[Artifact],  # noqa: ARG001 - inputs, which lineage follows
    dataset: str,  # noqa: ARG001 - its file counts in the key: the networks that it brings
    drift: Drift,
    device: str,
    classes: tuple[str, ...] | None,
) -> Artifact:
    """Write check.json, the mean image of each class, and the rows that drift most.

    Args:
        batch: of new data.
        base: what `normalise` returned; its classes are the ones to be expected.
        model: the present one; without it, labels and drift are not looked at.
        trained_on: its manifest, whose validation rows, else test rows, are the reference.
        parts: of that manifest.
        dataset: its name.
        drift: when a batch raises an alarm.
        device: cpu, cuda or mps.
        classes: their names, by label; None for those in the table.
    """
    from classifier import models
    from classifier.data.batches import SPLITS
    from classifier.data.parts import BACKUP, Part, Table, official
    from classifier.evaluation import figures, inspection

    published = official(base.path, "train")
    names = classes or published.description.classes
    files = [Part(path=batch.path / f"{split}.parquet", remedy=BACKUP) for split in SPLITS]
    table = Table(files, classes=len(names))
    seen = inspection.look_at(table)
    usual = inspection.look_at(published)
    reference = None
    if model is not None and trained_on is not None:
        images, labels = _reference_rows(model, trained_on)
        try:
            loaded = models.load(model.path)
            reference = inspection.Reference(
                model=loaded, images=images, labels=labels, device=device
            )
        except InputError as error:  # as where its network's code has changed
            get_run_logger().warning("No drift or labels are checked: %s", error)
    verdict, drifted = inspection.judge(
        table,
        seen,
        usual,
        reference,
        names,
        alarms_a_year=drift.alarms_a_year,
        checks_a_year=drift.checks_a_year,
        most_rows=MOST_ROWS,
    )
    if drift.stop and verdict["outcome"] == "drift":
        verdict["outcome"] = "broken"
    with draft() as new:
        text = json.dumps(verdict, indent=2) + "\n"
        (new.folder / "check.json").write_text(text, encoding="utf-8")
        figures.save(figures.class_means(seen.means, usual.means, names), new.folder / "means.png")
        if drifted:
            images, labels = table.take(drifted[:SHOWN])
            titles = [names[label] for label in labels]
            figures.save(figures.titled_grid(images, titles), new.folder / "drifted.png")
    return new.artifact


def _reference_rows(model: Artifact, trained_on: Artifact) -> "tuple[np.ndarray, np.ndarray]":
    """Return images and labels that the model did not train on."""
    import numpy as np

    from classifier.data.digests import row_digests
    from classifier.evaluation import inspection
    from classifier.training.sampler import held_back

    _, table = open_split(trained_on, "train")
    if rows := model.read_json("model.json")["recipe"]["validation_rows"]:
        digests = np.concatenate([row_digests(images) for images, _ in table.chunks()])
        return table.take(held_back(digests, rows)[:MOST_ROWS])
    _, table = open_split(trained_on, "test")
    return table.take(inspection.sample(len(table), MOST_ROWS))


def present_model(base: Artifact, dataset: str) -> tuple[Artifact, Artifact] | None:
    """Return the last model of the dataset, and the manifest that it was trained on.

    A model of other published rows, or one that rests on a retracted batch, does not count.
    """
    fits = {base.digest, *(batch.digest for batch in data.current(dataset).live)}
    manifests = {r.artifact.digest: r.artifact for r in records.everything(f"manifest/{dataset}")}
    found = sorted(records.everything(f"train/{dataset}"), key=lambda r: r.last_used, reverse=True)
    for record in found:
        manifest = manifests.get(keys.inputs(record.components()).get("manifest", ""))
        if manifest is None or find_damage(manifest) or find_damage(record.artifact):
            continue
        digests = {part.digest for part in parts_of(manifest)}
        if base.digest in digests and digests <= fits:
            return record.artifact, manifest
    return None


def record_check(dataset: str, batch: Batch, found: Artifact) -> None:
    """Write what the look at a batch found into the log; nothing if that is there already."""
    about = found.read_json("check.json")
    kept = ("outcome", "why", "note", "contradicted", "auc", "p_value", "label_p_value", "alpha")
    chosen = {name: about[name] for name in kept}
    with shared_lock(f"check/{dataset}"):  # two ingests at once may both have looked
        sharing.expire()
        if any(b.digest == batch.digest and b.check is None for b in data.current(dataset).batches):
            log.append("check", dataset, batch=batch.digest, artifact=found.name, **chosen)
