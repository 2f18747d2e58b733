"""Normalise: from IDX files to Parquet tables of float32 pixels in 0..1."""

from pathlib import Path

from artifacts.artifact import Artifact
from artifacts.step import draft
from classifier import datasets
from tasks.step import DATASET, step


@step(kind="tables", code=DATASET)
def normalise(raw: Artifact, dataset: str, limit: int | None) -> Artifact:
    """Write the tables `train` and `test`, in the order of the files.

    Args:
        raw: what `download` returned.
        dataset: its name.
        limit: only the first rows of each table; None for all.
    """
    with draft() as new:
        write_tables(raw.path, new.folder, dataset, source=raw.digest, limit=limit)
    return new.artifact


def write_tables(raw: Path, folder: Path, dataset: str, *, source: str, limit: int | None) -> None:
    """Write the tables from one folder to another."""
    from classifier.data import idx, tables

    labels = {split: idx.read(raw / f"{split}-labels.idx") for split in tables.SPLITS}
    images = {
        split: idx.stored(raw / f"{split}-images.idx", limit=limit) for split in tables.SPLITS
    }
    count = 1 + max(int(values.max()) for values in labels.values())
    description = tables.Description(
        dataset=dataset,
        shape=images["train"].shape[1:],
        classes=datasets.load(dataset).classes or tuple(map(str, range(count))),
        source=source,
    )
    for split in tables.SPLITS:
        part = folder / split / "part-00000.parquet"
        tables.write(part, images[split], labels[split][:limit], description)
