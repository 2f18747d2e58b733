"""A folder a class: CLASS/x.png or CLASS/GROUP/x.png.

Whatever lies there counts: hidden files and those that file managers leave are passed over, every
other file is a picture, or is refused with a reason.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classifier.data.inputs import decoding, files
from classifier.data.inputs.rows import NO_LABEL, Job, Rows, Subject
from classifier.data.inputs.wording import no_class, shown
from classifier.errors import InputError

ROWS = 500  # of a job: small enough for processes to end together
BYTES = 1 << 25  # of the files of a job, where one is smaller
SECONDS, SECONDS_PER_BYTE = 2e-4, 3e-8  # of a small picture; of the bytes of a large one
LOOSE = "it lies in no class folder, and is neither Parquet nor IDX"
LEFT_BY_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini"}


class Picture(NamedTuple):
    """A file, with the reason why it is refused before anyone looks into it.

    `stamp` is None where it must not be opened at all.
    """

    name: str
    label: int
    group: str | None
    stamp: files.Stamp | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class PictureJob(Job):
    """Some pictures of one input folder."""

    folder: str
    pictures: tuple[Picture, ...]

    @property
    def source(self) -> str:
        """The input folder."""
        return self.folder

    def rows_of(self, subject: Subject, *, everything: bool = False) -> Rows:
        """Decode and prepare the pictures; raises InputError when one changes meanwhile."""
        images = np.zeros((self.rows, *subject.shape), np.uint8)
        decoded = np.zeros(self.rows, np.bool_)
        reasons: list[str | None] = []
        with decoding.quiet():
            for row, picture in enumerate(self.pictures):
                wrong = picture.reason
                if picture.stamp is not None and (wrong is None or everything):
                    path = f"{self.folder}{os.sep}{picture.name}"
                    failure = _read_into(images[row], path, picture.stamp, subject)
                    decoded[row] = failure is None
                    wrong = wrong or failure
                reasons.append(wrong)
        return Rows(
            images=images,
            decoded=decoded,
            labels=[picture.label for picture in self.pictures],
            groups=[picture.group for picture in self.pictures],
            names=[picture.name for picture in self.pictures],
            reasons=reasons,
        )


def _read_into(out: np.ndarray, path: str, stamp: files.Stamp, subject: Subject) -> str | None:
    size = stamp[2]
    if size > decoding.MAX_BYTES:
        return f"not a readable picture (the file has {size:,} bytes)"
    try:
        data = files.content(path, stamp)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return decoding.decode_into(out, data, subject)


def jobs(folder: str, subject: Subject, *, known: set[str]) -> Iterator[PictureJob]:
    """Cut the visible files below a folder into jobs, but for those of `known` names at its top.

    Raises:
        InputError: a folder cannot be listed.
    """
    held: list[Picture] = []
    size = 0
    most = subject.rows_within(ROWS)
    for picture in found(folder, subject, known=known):
        bytes_of = picture.stamp[2] if picture.stamp else 0
        if held and (len(held) == most or size + bytes_of > BYTES):
            yield _job(folder, held, size)
            held, size = [], 0
        held.append(picture)
        size += bytes_of
    if held:
        yield _job(folder, held, size)


def _job(folder: str, pictures: list[Picture], size: int) -> PictureJob:
    return PictureJob(
        folder=folder,
        pictures=tuple(pictures),
        rows=len(pictures),
        seconds=SECONDS * len(pictures) + SECONDS_PER_BYTE * size,
    )


def visible(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name, but for hidden ones and what systems leave.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name.lower() not in LEFT_BY_SYSTEMS
            ]
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be read: {error.strerror}.") from error
    return sorted(kept, key=lambda entry: entry.name)


def found(folder: str, subject: Subject, *, known: set[str]) -> Iterator[Picture]:
    """Find all visible files below a folder in the order of their names, a folder at a time."""
    tree = Tree.at(folder)
    labels = {name: label for label, name in enumerate(subject.classes)}
    for entry in visible(folder):
        if entry.name in known:
            continue
        if wrong := tree.leads_out(entry):
            yield Picture(entry.name, NO_LABEL, None, None, wrong)
        elif not entry.is_dir():
            yield tree.picture(entry, entry.name, NO_LABEL, None, LOOSE)
        else:
            label = labels.get(entry.name, NO_LABEL)
            wrong = None if label != NO_LABEL else no_class(entry.name, subject.classes)
            yield from tree.of_class(entry, label, wrong)


def too_deep(path: Path) -> list[Path]:
    """Return the folders below an input folder whose files are not read."""
    if not path.is_dir():
        return []
    return sorted(deep for deep in path.glob("*/*/*") if deep.is_dir() and not deep.is_symlink())


@dataclass(frozen=True, kw_only=True)
class Tree:
    """An input folder, and the path that the targets of its links must begin with."""

    folder: str
    inside: str

    @classmethod
    def at(cls, folder: str) -> "Tree":
        """Return the tree of that folder."""
        return cls(folder=folder, inside=os.path.realpath(folder).rstrip(os.sep) + os.sep)

    def of_class(self, entry: os.DirEntry[str], label: int, wrong: str | None) -> Iterator[Picture]:
        """Find the files of a class folder and of the groups in it."""
        for inner in visible(entry.path):
            name = f"{entry.name}/{inner.name}"
            if self.leads_out(inner) or not inner.is_dir():
                yield self.picture(inner, name, label, None, wrong)
                continue
            for last in visible(inner.path):
                yield self.picture(last, f"{name}/{last.name}", label, inner.name, wrong)

    def picture(
        self, entry: os.DirEntry[str], name: str, label: int, group: str | None, wrong: str | None
    ) -> Picture:
        """Return the file, or why it must not be opened."""
        if unsafe := self.leads_out(entry):
            return Picture(name, label, group, None, unsafe)
        if entry.is_dir():
            deep = "a folder this deep is not read: give CLASS/picture or CLASS/GROUP/picture"
            return Picture(name, label, group, None, deep)
        if not entry.is_file():
            return Picture(name, label, group, None, "not a regular file")
        try:
            stamp = files.stamp_of(entry.stat())
        except FileNotFoundError:
            raise files.changed(entry.path) from None
        return Picture(name, label, group, stamp, wrong)

    def leads_out(self, entry: os.DirEntry[str]) -> str | None:
        """Return why a link is not followed."""
        if not entry.is_symlink():
            return None
        try:
            target = os.path.realpath(entry.path, strict=True)
        except OSError:
            return "a symbolic link that leads nowhere"
        if target.startswith(self.inside):
            return None
        return "a symbolic link that leads out of the folder"


def delete(job: PictureJob, picture: Picture) -> None:
    """Delete the file of a picture; of a link, what it leads to as well.

    Raises:
        InputError: it changed since it was planned, or cannot be deleted.
    """
    path = Path(job.folder, picture.name)
    target = path.resolve()
    try:
        same = not target.exists() or files.stamp_of(target.stat()) == picture.stamp
        if same:
            path.unlink()
            target.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be deleted: {error.strerror}.") from error
    if not same:
        raise files.changed(str(path))
