"""Normalise: from IDX files to Parquet tables of float32 pixels in 0..1."""

from pathlib import Path

from classifier import datasets
from tasks import artifacts
from tasks.artifacts import Artifact
from tasks.caching import BY_CONTENT, step


@step(name="normalise", cache_policy=BY_CONTENT)
def normalise(raw: Artifact, dataset: str, limit: int | None) -> Artifact:
    """The tables `train` and `test`, in the order of the files.

    Args:
        raw: what `download` gave.
        dataset: its name.
        limit: only the first rows of each table; None: all.
    """
    with artifacts.draft("tables", dataset=dataset) as new:
        write_tables(raw.path, new.folder, dataset, source=raw.digest, limit=limit)
    return new.finished()


def write_tables(raw: Path, folder: Path, dataset: str, *, source: str, limit: int | None) -> None:
    """The same from folder to folder."""
    from classifier import idx, tables

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
