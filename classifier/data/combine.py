"""Combine a base and batches of new data into a manifest, decided from the rows alone.

The base comes first, then the batches in order. The base keeps all its rows. A row of new data is
left out, in this order of reasons, when it was erased or dropped, when its pixels occur earlier,
or when it is nearly a row of a test set that it does not belong to. A recent test row is also left
out when it is nearly a published train row.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.data import batches
from classifier.data.digests import SIZE, as_keys, row_digests
from classifier.data.manifests import SPLITS, Entry, Manifest
from classifier.data.near import NearIndex
from classifier.data.parts import BACKUP, Part, Ranges, Table, official

DROP = -1  # in place of a label: the row does not count
NEAR = "near a test image"
TRAINED = "near a train image"

#: New label of a row, by the digest of its pixels in hexadecimal; DROP for none.
Corrections = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Source:
    """An artifact that a manifest is made of: kind, digest and folder."""

    kind: str
    digest: str
    folder: Path


def combine(
    base: Source,
    new: Sequence[Source],
    corrections: Corrections,
    erased: frozenset[str] = frozenset(),
    *,
    classes: int,
) -> Manifest:
    """Return the manifest of a base and batches of new data.

    Args:
        base: a table of official rows.
        new: the batches, in order.
        corrections: of labels.
        erased: digests, in hexadecimal, of rows that count nowhere.
        classes: how many there are.

    Raises:
        InputError: an artifact is damaged.
    """
    description = official(base.folder).description
    changes = {**corrections, **dict.fromkeys(erased, DROP)}
    files = list(_files(base.folder))
    added = [_Added(source, batches.read_rows(source.folder)) for source in new]
    if added or changes:
        rows = [(split, *_digests_and_labels(table)) for split, _, table in files]
        _leave_out_changed(added, changes, erased)
        _leave_out_duplicates(rows, added, corrections)
        entries = [
            _entry_of(base, split, file, digests, changes, np.zeros(len(digests), np.bool_))
            for (split, file, _), (_, digests, _) in zip(files, rows, strict=True)
        ]
        tables: dict[str, list[Table]] = {"train": [], "test": []}
        for entry in entries:
            tables[entry.split].append(Table([entry.part(base.folder)], classes=classes))
        _leave_out_near(tables["train"], tables["test"], added, classes)
        entries += [entry for each in added for entry in each.entries(changes)]
    else:  # nothing to compare: no row is looked at
        entries = [
            Entry(split=split, kind=base.kind, digest=base.digest, file=file, rows=len(table))
            for split, file, table in files
        ]
    listed = sorted(entries, key=lambda entry: SPLITS.index(entry.split))
    return Manifest(
        dataset=description.dataset,
        shape=description.shape,
        classes=classes,
        entries=tuple(entry for entry in listed if entry.rows),
        left_out=tuple(
            (each.source.digest, row, each.why[row]) for each in added for row in sorted(each.why)
        ),
    )


def _digests_and_labels(table: Table) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    digests, labels = [np.empty((0, SIZE), np.uint8)], [np.empty(0, np.uint8)]
    for images, there in table.chunks():
        digests.append(row_digests(images))
        labels.append(there)
    return np.concatenate(digests), np.concatenate(labels)


@dataclass
class _Added:
    """A batch, and why some of its rows do not count: a reason by row."""

    source: Source
    rows: batches.Rows
    why: dict[int, str] = field(default_factory=dict)

    def numbers(self, split: str) -> NDArray[np.int64]:
        """Return which rows of the batch are in that file, in its order."""
        return np.flatnonzero(self.rows.recent == (split == batches.RECENT))

    def skip(self, split: str) -> NDArray[np.bool_]:
        """Return bool, for each row of that file whether it does not count."""
        return np.isin(self.numbers(split), list(self.why))

    def table(self, split: str, classes: int) -> Table:
        """Return the rows that count of that file."""
        path = self.source.folder / f"{split}.parquet"
        part = Part(path=path, skip=ranges_of(self.skip(split)), remedy=BACKUP)
        return Table([part], classes=classes)

    def leave_out_near(self, split: str, index: NearIndex, classes: int) -> None:
        """Leave out the rows of that file that are nearly an image of the index."""
        numbers = self.numbers(split)[~self.skip(split)]
        start = 0
        for images, _ in self.table(split, classes).chunks():
            near = numbers[start : start + len(images)][index.find(images) >= 0]
            self.why |= dict.fromkeys(near.tolist(), NEAR)
            start += len(images)

    def entries(self, changes: Corrections) -> Iterator[Entry]:
        """Yield the parts of the manifest."""
        for split in batches.SPLITS:
            name = f"{split}.parquet"
            digests = self.rows.digests[self.numbers(split)]
            yield _entry_of(self.source, split, name, digests, changes, self.skip(split))


def _files(folder: Path) -> Iterator[tuple[str, str, Table]]:
    """Yield split, name and rows of each official part."""
    for split in ("train", "test"):
        for path in sorted((folder / split).glob("part-*.parquet")):
            yield split, path.relative_to(folder).as_posix(), Table([Part(path=path)])


def _entry_of(
    source: Source,
    split: str,
    file: str,
    digests: NDArray[np.uint8],
    changes: Corrections,
    skip: NDArray[np.bool_],
) -> Entry:
    """Return a part with the changes to its rows, whose digests these are."""
    skip = skip.copy()
    labels = {}
    for row in np.flatnonzero(among(digests, changes) & ~skip).tolist():
        label = changes[digests[row].tobytes().hex()]
        if label == DROP:
            skip[row] = True
        else:
            labels[row] = label
    return Entry(
        split=split,
        kind=source.kind,
        digest=source.digest,
        file=file,
        rows=int((~skip).sum()),
        skip=ranges_of(skip),
        labels=labels,
    )


def _leave_out_changed(
    added: Sequence[_Added], changes: Corrections, erased: frozenset[str]
) -> None:
    """Leave out the rows that were erased or dropped."""
    gone = [digest for digest, label in changes.items() if label == DROP]
    for each in added:
        for row in np.flatnonzero(among(each.rows.digests, gone)).tolist():
            is_erased = each.rows.digests[row].tobytes().hex() in erased
            each.why[row] = "erased" if is_erased else "dropped"


def _leave_out_duplicates(
    base: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]],
    added: Sequence[_Added],
    corrections: Corrections,
) -> None:
    """Leave out each row whose pixels occur earlier, in the base or in a batch."""
    digests = np.concatenate([*(d for _, d, _ in base), *(a.rows.digests for a in added)])
    labels = np.concatenate([*(n for *_, n in base), *(a.rows.labels for a in added)])
    tests = np.concatenate(
        [
            *(np.full(len(n), split == "test") for split, _, n in base),
            *(each.rows.recent for each in added),
        ]
    )
    corrected = among(digests, corrections)
    _, first, inverse = np.unique(as_keys(digests), return_index=True, return_inverse=True)
    earlier = first[inverse.ravel()]
    start = sum(len(labels) for *_, labels in base)
    for each in added:
        rows = np.arange(start, start + len(each.rows))
        for row in rows[earlier[rows] < rows].tolist():
            other = earlier[row]
            if labels[other] != labels[row] and not corrected[row]:
                why = "another label"
            else:
                why = "test image" if tests[other] else "duplicate"
            each.why.setdefault(row - start, why)
        start += len(each.rows)


def _leave_out_near(
    train: Sequence[Table], official_test: Sequence[Table], added: Sequence[_Added], classes: int
) -> None:
    """Leave out rows that are nearly rows of a test set that they do not belong to.

    A recent row that is nearly a published train row would be a test of memory: it goes too.
    """
    if index := _index(official_test):
        for each in added:
            for split in batches.SPLITS:
                each.leave_out_near(split, index, classes)
    if index := _leave_out_trained(train, added, classes):
        for each in added:
            each.leave_out_near(batches.TRAIN, index, classes)


def _leave_out_trained(
    train: Sequence[Table], added: Sequence[_Added], classes: int
) -> NearIndex | None:
    """Leave out the recent rows that are nearly published train rows; index those that are left."""
    while index := _index([each.table(batches.RECENT, classes) for each in added]):
        kept = [
            (each, row)
            for each in added
            for row in each.numbers(batches.RECENT)[~each.skip(batches.RECENT)].tolist()
        ]
        copies: set[int] = set()
        for images, _ in (chunk for table in train for chunk in table.chunks()):
            copies |= index.copied(images)
        if not copies:
            break
        for each, row in (kept[number] for number in copies):
            each.why[row] = TRAINED
    return index


def _index(tables: Sequence[Table]) -> NearIndex | None:
    count = sum(map(len, tables))
    if not count:
        return None
    images = np.empty((count, *tables[0].description.shape), np.uint8)
    start = 0
    for part, _ in (chunk for table in tables for chunk in table.chunks()):
        images[start : start + len(part)] = part
        start += len(part)
    return NearIndex(images)


def among(digests: NDArray[np.uint8], wanted: Collection[str]) -> NDArray[np.bool_]:
    """Return bool [N]: which digests [N, 32] are among these, in hexadecimal."""
    found = np.zeros(len(digests), np.bool_)
    if wanted:
        keys = np.frombuffer(b"".join(map(bytes.fromhex, wanted)), np.uint8).reshape(-1, SIZE)
        found = np.isin(as_keys(digests), as_keys(keys))
    return found


def ranges_of(chosen: NDArray[np.bool_]) -> Ranges:
    """Return the chosen rows as ranges, start to stop."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))
