"""The names of a batch's rows, which are no part of the batch: they lie beside the log."""

from pathlib import Path

from artifacts import layout


def keep_names(digest: str, names: Path) -> None:
    """Keep the names of a batch's rows beside the log: they are no part of the batch."""
    place = names_of(digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    names.replace(place)


def names_of(digest: str) -> Path:
    """Return the file with the name of each good row of a batch, a JSON text a line."""
    return layout.store() / "names" / f"{digest}.jsonl"
