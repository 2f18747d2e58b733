"""Manifests: which rows of which parts are trained and tested on.

A manifest is a folder with manifest.json, which lists the parts. No row is copied to make one. Why
rows of new data do not count is not in it: that changes nothing that is trained on.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
