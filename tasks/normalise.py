"""Normalise: from IDX files to Parquet tables of float32 pixels in 0..1."""

import json
from pathlib import Path

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.step import DATASET, step


@step(kind="tables", code=DATASET, ignored=("classes",))
def normalise(
    raw: Artifact, dataset: str, limit: int | None, classes: tuple[str, ...] | None
) -> Artifact:
    """Write the tables `train` and `test`, in the order of the files.

    Args:
        raw: what `download` returned.
        dataset: its name.
        limit: only the first rows of each table; None for all.
        classes: their names, for people who read the table; None to number them. A new name
            changes no row, so it is not in the key: `manifest` checks the order.
    """
    with draft() as new:
        write_tables(raw.path, new.folder, dataset, source=raw.digest, limit=limit, classes=classes)
    return new.artifact


def write_tables(
    raw: Path,
    folder: Path,
    dataset: str,
    *,
    source: str,
    limit: int | None,
    classes: tuple[str, ...] | None,
) -> None:
    """Write the tables from one folder to another."""
    from classifier.data import idx, tables

    labels = {split: idx.read(raw / f"{split}-labels.idx") for split in tables.SPLITS}
    images = {
        split: idx.stored(raw / f"{split}-images.idx", limit=limit) for split in tables.SPLITS
    }
    count = 1 + max(int(values.max()) for values in labels.values())
    named = raw / "classes.json"
    if classes is None and named.exists():
        classes = tuple(json.loads(named.read_text(encoding="utf-8")))
    description = tables.Description(
        dataset=dataset,
        shape=images["train"].shape[1:],
        classes=classes or tuple(map(str, range(count))),
        source=source,
    )
    for split in tables.SPLITS:
        part = folder / split / "part-00000.parquet"
        tables.write(part, images[split], labels[split][:limit], description)
