"""Rows taken out of the inputs themselves, known by the digest of their pixels."""

import hashlib
import os
from collections.abc import Collection
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.data.inputs import files, idx_pairs, pictures
from classifier.data.inputs.planning import plan
from classifier.data.inputs.rows import Job, NothingFoundError, Rows, Subject


def erase(path: Path, digests: Collection[bytes], subject: Subject) -> int:
    """Remove the rows whose digest is given, good or refused; return how many there were.

    A picture's file is deleted. A Parquet file, or a pair of IDX files, is written anew without the
    rows, in the same format, and takes its place in one step (a pair: in two, the images first; one
    that is half replaced is unequal in length, which every reader refuses). A file without such
    rows is left alone.

    Args:
        path: an input as `plan` takes it; of an IDX pair also the images file alone.
        digests: SHA-256 of the uint8 pixels in C order, 32 bytes each.
        subject: what the rows must be.

    Raises:
        InputError: as `plan` and `read`.
    """
    wanted = frozenset(digests)
    removed = 0
    try:
        jobs = plan(_with_labels(path), subject)
    except NothingFoundError:  # all of it was erased before
        return 0
    for _, of_source in groupby(jobs, key=lambda job: (type(job), job.source)):
        removed += _erase_from(list(of_source), wanted, subject)
    return removed


def _with_labels(path: Path) -> list[Path]:
    """Return the path, with the labels beside it where it is an images file.

    A link beside it that leads out of their folder is left, as where a folder is read.
    """
    if not path.is_file() or files.form(str(path))[0] != "idx":
        return [path]
    mine = os.path.abspath(path)  # noqa: PTH100 - keeps links
    folder = str(Path(mine).parent)
    tree = pictures.Tree.at(folder)
    safe = (one for one in pictures.visible(folder) if one.path == mine or not tree.leads_out(one))
    halves = [one.path for one in safe if one.is_file() and files.form(one.path)[0] == "idx"]
    pair = next((each for each in idx_pairs.pairs(halves) if mine in each), (mine,))
    return [Path(file) for file in pair]


def _erase_from(jobs: list[Job], wanted: frozenset[bytes], subject: Subject) -> int:
    masks = [_keeps(job.rows_of(subject, everything=True), wanted) for job in jobs]
    count = sum(int((~mask).sum()) for mask in masks)
    if not count:
        return 0
    match jobs[0]:
        case pictures.PictureJob():
            _delete(jobs, masks)
        case idx_pairs.IdxJob(pair=pair):
            idx_pairs.without(pair, np.concatenate(masks))
        case _:
            from classifier.data.inputs import parquet

            parts = [job for job in jobs if isinstance(job, parquet.ParquetJob)]
            parquet.without(parts, masks)
    return count


def _keeps(rows: Rows, wanted: frozenset[bytes]) -> NDArray[np.bool_]:
    """Return which rows stay: bool [N]."""
    return np.array(
        [
            not (has_pixels and hashlib.sha256(image.tobytes()).digest() in wanted)
            for image, has_pixels in zip(rows.images, rows.decoded, strict=True)
        ],
        dtype=np.bool_,
    )


def _delete(jobs: list[Job], masks: list[NDArray[np.bool_]]) -> None:
    for job, mask in zip(jobs, masks, strict=True):
        if isinstance(job, pictures.PictureJob):
            for row in np.flatnonzero(~mask):
                pictures.delete(job, job.pictures[row])
