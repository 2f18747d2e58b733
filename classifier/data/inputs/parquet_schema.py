"""Parquet files opened, and their schemas: which are read, and what they call the classes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from classifier.data.inputs import columns, files
from classifier.data.inputs.rows import Subject
from classifier.data.inputs.wording import clipped, shown
from classifier.errors import InputError

NEEDED = (
    "`image` (lists of values in 0..1, integers in 0..255, or a struct with the bytes of a "
    "picture) and `label` (an integer or a class name)"
)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Whatever a damaged file makes the block raise becomes one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, TypeError, MemoryError) as error:
        reason = clipped(" ".join(str(error).split()))
        raise InputError(
            f"{shown(path)} is a damaged Parquet file ({reason}): write it again."
        ) from error


@contextmanager
def opened(path: str, stamp: files.Stamp) -> Iterator[Any]:
    """Open a file that has its stamp before and after the block; damage becomes one sentence."""
    checks = {"page_checksum_verification": True}
    with (
        files.unchanged(path, stamp) as stream,
        readable(path),
        pq.ParquetFile(stream, **checks) as file,
    ):
        yield file


def check_schema(path: str, schema: Any, subject: Subject) -> None:
    """Raise InputError unless the columns are those of one of the two forms."""
    kinds = {name: schema.field(i).type for i, name in enumerate(schema.names)}
    image, label, group = (kinds.get(name) for name in ("image", "label", "group"))
    if len(kinds) != len(schema.names) or image is None or label is None:
        wrong = f"needs {NEEDED}"
    elif not columns.is_encoded(image) and not columns.is_values(image, subject.shape):
        wrong = f"needs images of {subject.shape} in {NEEDED}"
    elif not _is_text(label) and not pa.types.is_integer(label):
        wrong = "needs a `label` that is an integer or a class name"
    elif group is not None and not _is_text(group) and not pa.types.is_integer(group):
        wrong = "needs a `group` that is a text or an integer"
    else:
        return
    shape = (schema.metadata or {}).get(b"shape", b"").decode(errors="replace")
    found = ", ".join(f"{clipped(name)} ({clipped(kind)})" for name, kind in [*kinds.items()][:10])
    also = f" and images of {clipped(shape)}" if shape else ""
    raise InputError(
        f"{shown(path)} has the columns {found or 'none'}{also}, and {wrong}: write it again."
    )


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def class_names(metadata: dict[bytes, bytes], path: str) -> tuple[str, ...] | None:
    """Return what the file calls its classes, in our metadata or in that of Hugging Face.

    Raises:
        InputError: it names them in a way that cannot be read.
    """
    try:
        if b"classes" in metadata:
            found = json.loads(metadata[b"classes"])
        else:
            found = json.loads(metadata.get(b"huggingface", b"null"))
            for key in ("info", "features", "label", "names"):
                found = None if found is None else found.get(key)
    except (ValueError, AttributeError, RecursionError) as error:
        raise _unnamed(path) from error
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise _unnamed(path)
    return tuple(found)


def _unnamed(path: str) -> InputError:
    return InputError(
        f"{shown(path)} names its classes in metadata that cannot be read: write it again with a "
        "JSON list of names."
    )
