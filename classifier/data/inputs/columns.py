"""Columns of Parquet files as pixels, labels and groups."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from classifier.data.inputs import decoding
from classifier.data.inputs.rows import NO_LABEL, Bytes, Subject
from classifier.data.inputs.wording import no_class, no_label

WHITE = 255
Reasons = list[str | None]


def is_list(kind: Any) -> bool:
    """Whether a column of this type holds lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_encoded(kind: Any) -> bool:
    """Whether a column of this type holds pictures as bytes, as Hugging Face writes them."""
    fields = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    content = fields.get("bytes")
    return content is not None and (
        pa.types.is_binary(content) or pa.types.is_large_binary(content)
    )


def is_values(kind: Any, shape: tuple[int, ...]) -> bool:
    """Whether a column of this type can hold images of the shape, flat or nested as it is."""
    lengths = []
    while is_list(kind):
        lengths.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = kind.value_type
    nested = _lengths(shape, len(lengths))
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return (
        number
        and nested is not None
        and all(found in {None, wanted} for found, wanted in zip(lengths, nested, strict=True))
    )


def _lengths(shape: tuple[int, ...], depth: int) -> tuple[int, ...] | None:
    """Return the lengths of lists nested so deep, or None where they cannot be this shape."""
    if depth == 1:
        return (int(np.prod(shape)),)
    squeezed = shape[:-1] if shape[-1] == 1 else shape
    return next((each for each in (shape, squeezed) if len(each) == depth), None)


def decoded(column: Any, images: Bytes, subject: Subject) -> Reasons:
    """Fill images, uint8 [N, *shape], from a column of encoded pictures."""
    reasons: Reasons = []
    valid = column.is_valid().to_pylist()
    with decoding.quiet():
        for row, data in enumerate(column.field("bytes")):
            if not valid[row] or not data.is_valid:
                reasons.append("no picture: its bytes are not in the file")
            elif len(data.as_buffer()) > decoding.MAX_BYTES:
                reasons.append(f"not a readable picture (it has {len(data.as_buffer()):,} bytes)")
            else:
                reasons.append(decoding.decode_into(images[row], data.as_py(), subject))
    return reasons


def quantised(column: Any, images: Bytes, subject: Subject) -> Reasons:
    """Fill images, uint8 [N, *shape], from lists of 0..1 (floating) or 0..255 (integers).

    Floating values are multiplied by 255 and rounded.
    """
    values, complete = _flat(column, subject.shape)
    reasons: Reasons = [None] * len(column)
    for row in np.flatnonzero(~complete):
        missing = "no image: it is null" if not column[int(row)].is_valid else None
        reasons[row] = missing or f"its lists are not of the lengths of {subject.shape}"
    if not len(values):
        return reasons
    integers = pa.types.is_integer(_leaf(column.type))
    with np.errstate(invalid="ignore"):
        pixels, wrong = _scaled(values, 1 if integers else WHITE)
    rows = np.flatnonzero(complete)
    images.reshape(len(column), -1)[rows] = pixels
    for place, reason in wrong.items():
        reasons[rows[place]] = reason
    return reasons


def _scaled(values: NDArray[Any], scale: int) -> tuple[Bytes, dict[int, str]]:
    """Return values [N, P] times the scale as uint8, and the rows where that cannot be."""
    low, high = values.min(axis=1), values.max(axis=1)
    top = WHITE // scale
    outside = ~((low >= 0) & (high <= top))
    wrong = {int(row): _outside(low[row], high[row], top) for row in np.flatnonzero(outside)}
    if scale == WHITE and outside.any() and _is_255(values, low, high):
        for row in np.flatnonzero(~outside):
            wrong[int(row)] = "its neighbours have whole values up to 255: divide by 255"
    if scale == 1:
        return values.astype(np.uint8), wrong
    pixels = values * np.asarray(scale, values.dtype)
    return np.rint(pixels, out=pixels).astype(np.uint8), wrong


def _is_255(values: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> bool:
    """Whether all rows are whole values of 0..255, so that dark rows are of that scale too."""
    return bool(low.min() >= 0 and high.max() <= WHITE and (values == np.rint(values)).all())


def _outside(low: Any, high: Any, top: int) -> str:
    if np.isnan(low) or np.isnan(high):
        return "a value is NaN or missing"
    is_scaled = top == 1 and low >= 0 and 2 < high <= WHITE  # noqa: PLR2004 - not just above 1
    remedy = ": divide by 255" if is_scaled else ""
    return f"values from {low:g} to {high:g}, not within 0 to {top}{remedy}"


def _flat(column: Any, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values [M, P] of the M complete rows, and which rows these are: bool [N]."""
    depth: int = 0
    kind = column.type
    while is_list(kind):
        depth, kind = depth + 1, kind.value_type
    bounds = np.arange(len(column) + 1)  # where the elements of each row begin and end
    complete = np.ones(len(column), np.bool_)
    for wanted in _lengths(shape, depth) or ():
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        lengths = np.where(valid, lengths, 0)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        wrong = np.concatenate([[0], np.cumsum(lengths != wanted)])
        complete &= wrong[bounds[1:]] == wrong[bounds[:-1]]
        bounds = ends[bounds]
        column = column.flatten()
    leaf = column.to_numpy(zero_copy_only=False)
    if not complete.all():
        leaf = leaf[np.repeat(complete, np.diff(bounds))]
    return leaf.reshape(int(complete.sum()), -1), complete


def _leaf(kind: Any) -> Any:
    while is_list(kind):
        kind = kind.value_type
    return kind


def labelled(
    column: Any, names: Sequence[str] | None, subject: Subject
) -> tuple[list[int], Reasons]:
    """Return labels, and the reasons where there is none.

    Args:
        column: integers or class names.
        names: of the classes that the integers stand for; None: they are the subject's labels.
        subject: whose labels are returned.
    """
    numbers = {name: label for label, name in enumerate(subject.classes)}

    @cache
    def of(value: int | str | None) -> tuple[int, str | None]:
        if value is None:
            return NO_LABEL, "no label: it is null"
        if isinstance(value, int):
            known = subject.classes if names is None else names
            if not 0 <= value < len(known):
                return NO_LABEL, no_label(value, known)
            value = known[value]
        if value not in numbers:
            return NO_LABEL, no_class(value, subject.classes)
        return numbers[value], None

    found = [of(value) for value in column.to_pylist()]
    return [label for label, _ in found], [reason for _, reason in found]


def grouped(column: Any) -> list[str | None]:
    """Return groups as text."""
    return [None if value is None else str(value) for value in column.to_pylist()]
