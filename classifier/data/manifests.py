"""Manifests: which rows of which parts are trained and tested on.

A manifest is a folder with manifest.json, which lists the parts. No row is copied to make one. Why
rows of new data do not count is in a folder of its own, with left_out.parquet: it changes nothing
that is trained on.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from classifier.data.parts import BACKUP, REMEDY, Part, Ranges
from classifier.data.tables import explain_unreadable

FORMAT = 1
#: The splits of a manifest: `recent` is the test set of new data, `test` the official one.
SPLITS = ("train", "recent", "test")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One part of a manifest.

    Fields:
        split: to which it belongs.
        kind, digest: of the artifact that holds it.
        file: in that artifact.
        rows: how many of its rows count.
        skip: ranges of rows that do not.
        labels: corrected labels, by row of the file.
    """

    split: str
    kind: str
    digest: str
    file: str
    rows: int
    skip: Ranges = ()
    labels: Mapping[int, int] = field(default_factory=dict)

    def part(self, folder: Path) -> Part:
        """Return the part, given the folder of its artifact."""
        remedy = REMEDY if self.kind == "tables" else BACKUP
        return Part(path=folder / self.file, skip=self.skip, labels=self.labels, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is trained and tested on.

    Fields:
        dataset: its name.
        shape: of one image.
        classes: how many there are.
        entries: the parts, each split in its order.
        left_out: of each row of new data that does not count: batch, row of the batch, reason.
    """

    dataset: str
    shape: tuple[int, ...]
    classes: int
    entries: tuple[Entry, ...]
    left_out: tuple[tuple[str, int, str], ...] = ()

    def rows(self, split: str) -> int:
        """Return how many rows a split has."""
        return sum(entry.rows for entry in self.entries if entry.split == split)

    def write(self, folder: Path) -> None:
        """Write manifest.json; equal manifests give equal bytes."""
        about = {
            "format": FORMAT,
            "dataset": self.dataset,
            "shape": self.shape,
            "classes": self.classes,
            "parts": [asdict(entry) for entry in self.entries],
        }
        (folder / "manifest.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def write_left_out(self, folder: Path) -> None:
        """Write left_out.parquet."""
        columns = list(zip(*self.left_out, strict=True)) or [(), (), ()]
        table = pa.table([pa.array(c, t) for c, t in zip(columns, _TYPES, strict=True)], _NAMES)
        pq.write_table(table, folder / "left_out.parquet", compression="zstd")


_TYPES, _NAMES = (pa.string(), pa.int64(), pa.string()), ["batch", "row", "reason"]


def read(folder: Path) -> Manifest:
    """Return the manifest of that folder, without what was left out.

    Raises:
        InputError: it is damaged.
    """
    with explain_unreadable(folder / "manifest.json", REMEDY):
        about = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        entries = tuple(_entry(part) for part in about["parts"])
        return Manifest(
            dataset=about["dataset"],
            shape=tuple(about["shape"]),
            classes=about["classes"],
            entries=entries,
        )


def _entry(part: dict[str, Any]) -> Entry:
    skip = tuple((start, stop) for start, stop in part["skip"])
    return Entry(**part | {"skip": skip, "labels": {int(r): n for r, n in part["labels"].items()}})


def left_out(folder: Path) -> dict[str, dict[int, str]]:
    """Return why rows of new data do not count: reason by row of the batch, by batch digest.

    Args:
        folder: into which `write_left_out` wrote.

    Raises:
        InputError: the file is damaged.
    """
    found: dict[str, dict[int, str]] = {}
    with explain_unreadable(folder / "left_out.parquet", REMEDY):
        for row in pq.read_table(folder / "left_out.parquet").to_pylist():
            found.setdefault(row["batch"], {})[row["row"]] = row["reason"]
    return found
