"""From paths to jobs: what each input is, told by its content."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from classifier.data.inputs import files, idx_pairs, pictures
from classifier.data.inputs.rows import Job, NothingFoundError, Subject
from classifier.data.inputs.wording import shown
from classifier.errors import InputError

FORMS = (
    "give a folder with a folder of pictures for each class, Parquet files with image and label, "
    "or IDX files of images and labels"
)


def plan(paths: Sequence[Path], subject: Subject) -> list[Job]:
    """Cut inputs into jobs, in the order of the paths; one given twice counts once.

    Raises:
        InputError: a path does not exist, is none of the forms, holds nothing, or cannot be used
            as a whole.
    """
    given = sorted({os.path.abspath(path) for path in paths})  # noqa: PTH100 - keeps links
    found: list[tuple[str, Job]] = []
    loose: list[str] = []
    for path in given:
        if not os.path.lexists(path):
            raise InputError(f"{shown(path)} does not exist: give a path that does.")
        if os.path.isdir(path):  # noqa: PTH112
            found += [(path, job) for job in _of_folder(path, subject)]
            continue
        kind, stamp = files.form(path)
        if kind == "idx":
            loose.append(path)
        else:
            found += [(path, job) for job in _of_file(path, kind, stamp, subject)]
    found += [(job.source, job) for job in idx_pairs.jobs(loose, subject)]
    return [job for _, job in sorted(found, key=lambda each: each[0])]


def _of_file(path: str, kind: str | None, stamp: files.Stamp, subject: Subject) -> Iterator[Job]:
    if kind == "parquet":
        from classifier.data.inputs import parquet

        yield from parquet.jobs(path, stamp, subject)
    elif kind == "picture":
        raise InputError(
            f"{shown(path)} is a single picture without a label: give the folder above its class "
            "folder."
        )
    else:
        raise InputError(f"{shown(path)} is not in a form that is read: {FORMS}.")


def _of_folder(folder: str, subject: Subject) -> Iterator[Job]:
    """Yield the jobs of everything in a folder: Parquet and IDX files, and class folders."""
    entries = pictures.visible(folder)
    if not entries:
        raise NothingFoundError(f"{shown(folder)} is empty: {FORMS}.")
    forms = _forms(folder, entries)
    tables = [(name, stamp) for name, (kind, stamp) in forms.items() if kind == "parquet"]
    for name, stamp in tables:
        yield from _of_file(os.path.join(folder, name), "parquet", stamp, subject)  # noqa: PTH118
    arrays = [name for name, (kind, _) in forms.items() if kind == "idx"]
    yield from idx_pairs.jobs([os.path.join(folder, name) for name in arrays], subject)  # noqa: PTH118
    known = {*arrays, *(name for name, _ in tables)}
    others = list(pictures.jobs(folder, subject, known=known))
    if not known and not any(_recognised(job, subject) for job in others):
        raise NothingFoundError(f"{shown(folder)} holds no labelled images: {FORMS}.")
    yield from others


def _forms(
    folder: str, entries: Sequence[os.DirEntry[str]]
) -> dict[str, tuple[str | None, files.Stamp]]:
    """Return form and stamp of the regular files right in a folder, links that lead out apart."""
    tree = pictures.Tree.at(folder)
    regular = [entry for entry in entries if not tree.leads_out(entry) and entry.is_file()]
    return {entry.name: files.form(entry.path) for entry in regular}


def _recognised(job: pictures.PictureJob, subject: Subject) -> bool:
    """Whether there is a file in a folder of a known class, or a picture in any folder."""
    for picture in job.pictures:
        if picture.stamp is None:
            continue
        if picture.label in range(len(subject.classes)):
            return True
        if "/" in picture.name:
            kind, _ = files.form(os.path.join(job.folder, picture.name))  # noqa: PTH118
            if kind == "picture":
                return True
    return False
