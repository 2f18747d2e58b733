"""Rows that must go: a batch written anew without them, and chunks that bring them back."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.data import batches
from classifier.data.combine import among, ranges_of
from classifier.data.digests import row_digests
from classifier.data.inputs import Chunk, Refused
from classifier.data.parts import BACKUP, Part, Table
from classifier.data.tables import Writer, explain_unreadable


def write_without(
    folder: Path, target: Path, digests: Collection[str]
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Write the batch of a folder into another one, without the rows of these digests.

    The bytes are those of a batch in which the rows never were.

    Args:
        folder: of the batch.
        target: an existing folder.
        digests: of pixels, in hexadecimal; refused rows with such pixels go too.

    Returns:
        bool, for each row of the batch whether it is still there, and what batch.json says now.

    Raises:
        InputError: the batch is damaged.
    """
    rows = batches.read_rows(folder)
    keep = ~among(rows.digests, digests)
    counts = {}
    for split in batches.SPLITS:
        gone = ~keep[rows.recent == (split == batches.RECENT)]
        path = folder / f"{split}.parquet"
        table = Table([Part(path=path, skip=ranges_of(gone), remedy=BACKUP)])
        with Writer(target / path.name, table.description) as part:
            for images, labels in table.chunks():
                part.write(images, labels)
        counts[split] = part.rows
    with explain_unreadable(folder / "rows.parquet", BACKUP):
        described = pq.read_table(folder / "rows.parquet").filter(keep)
    with explain_unreadable(folder / "refused.parquet", BACKUP):
        refused = pq.read_table(folder / "refused.parquet")
        images = refused.column("image").to_pylist()
    with explain_unreadable(folder / "batch.json", BACKUP):
        about = json.loads((folder / "batch.json").read_text(encoding="utf-8")) | counts
    fine = [i is None or hashlib.sha256(i).hexdigest() not in digests for i in images]
    for name, rows_left in (
        ("rows.parquet", described),
        ("refused.parquet", refused.filter(pa.array(fine, pa.bool_()))),
    ):
        with batches.RowsWriter(target / name, rows_left.schema, table.description) as file:
            file.write(rows_left)
    groups = batches.as_bytes(described.column("group"))
    content = batches.content_of(rows.digests[keep], groups, rows.labels[keep])
    about |= {"refused": sum(fine), "content": hashlib.sha256(content).hexdigest()}
    batches.write_about(target, about)
    return keep, about


def without_erased(chunk: Chunk, erased: Collection[str]) -> Chunk:
    """Return the chunk without the rows that must never come back, and without their pixels."""
    digests = [digest.tobytes().hex() for digest in row_digests(chunk.images)]
    good = [row for row, digest in enumerate(digests) if digest not in erased]
    refused = [
        replace(row, image=None)
        if row.image is not None and row_digests(row.image[None])[0].tobytes().hex() in erased
        else row
        for row in chunk.refused
    ]
    refused += [
        Refused(what=chunk.names[row], reason="erased")
        for row, digest in enumerate(digests)
        if digest in erased
    ]
    return Chunk(
        images=chunk.images[good],
        labels=chunk.labels[good],
        groups=[chunk.groups[row] for row in good],
        names=[chunk.names[row] for row in good],
        refused=refused,
    )
