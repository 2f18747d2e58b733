"""Chunks on disk while a batch is read, so that an interrupted ingest goes on where it was."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from classifier.data.inputs import Chunk, Job, Refused, Subject, read_all


def key_of(jobs: Sequence[Job], subject: Subject, code: str) -> str:
    """Return the SHA-256 of all that the chunks depend on: the files as they are, and the code.

    Args:
        jobs: what is read; they hold size and time of each file.
        subject: what the rows must be.
        code: of the dataset's file, in which `prepare` is.
    """
    about = (code, subject.dataset, subject.shape, subject.classes, list(jobs))
    # Not pickle: its bytes also say which of the equal texts are one object.
    return hashlib.sha256(repr(about).encode()).hexdigest()


def read_staged(
    jobs: Sequence[Job], subject: Subject, folder: Path, *, on_rows: Callable[[int], None]
) -> Iterator[Chunk]:
    """Yield the chunks of the jobs, in order; those that the folder holds are not read again.

    Args:
        jobs: from `plan`.
        subject: what the rows must be.
        folder: of this ingest alone.
        on_rows: called with the rows that each chunk took.

    Raises:
        InputError: as `read_all`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    while done < len(jobs) and (chunk := _load(folder / f"{done}.npz")) is not None:
        on_rows(jobs[done].rows)
        yield chunk
        done += 1
    for number, chunk in enumerate(read_all(jobs[done:], subject), start=done):
        _save(folder / f"{number}.npz", chunk)
        on_rows(jobs[number].rows)
        yield chunk


def _save(path: Path, chunk: Chunk) -> None:
    pictured = [row.image for row in chunk.refused if row.image is not None]
    texts = {
        "groups": chunk.groups,
        "names": chunk.names,
        "refused": [(row.what, row.reason, row.image is not None) for row in chunk.refused],
    }
    new = path.with_suffix(".tmp")
    with new.open("wb") as file:
        np.savez(
            file,
            images=chunk.images,
            labels=chunk.labels,
            refused=np.array(pictured, np.uint8),
            texts=np.frombuffer(json.dumps(texts).encode(), np.uint8),
        )
    new.replace(path)


#: What NumPy and zipfile are known to raise for damaged archives.
_INCOMPLETE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, StopIteration, SyntaxError),
    *(NotImplementedError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
)


def _load(path: Path) -> Chunk | None:
    """Return the chunk; None if it is not there, or was left incomplete."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            texts = json.loads(file["texts"].tobytes())
            pictured = iter(file["refused"])
            return Chunk(
                images=file["images"],
                labels=file["labels"],
                groups=texts["groups"],
                names=texts["names"],
                refused=[
                    Refused(what=what, reason=reason, image=next(pictured) if has_image else None)
                    for what, reason, has_image in texts["refused"]
                ],
            )
    except _INCOMPLETE:
        return None
