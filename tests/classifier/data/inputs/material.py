"""Subjects and inputs that the tests of the forms share."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from classifier.data import idx, inputs
from classifier.datasets import resize_to_shape

CLASSES = ("box", "ring", "star")
SHAPE = (6, 5)


def subject(**fields):
    return inputs.Subject(
        **{"dataset": "toys", "shape": SHAPE, "classes": CLASSES, "prepare": resize_to_shape}
        | fields
    )


def drawn(count, shape=SHAPE, seed=0):
    """Images with all their values different from their first: uint8 [count, *shape]."""
    images = np.random.default_rng(seed).integers(1, 256, (count, *shape), dtype=np.uint8)
    images.reshape(count, int(np.prod(shape)))[:, 0] = 0
    return images


def png(image, **options):
    """The bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", **options)
    return stream.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(paths, about=None, **options):
    """All chunks of these paths as one."""
    about = about or subject()
    paths = [paths] if isinstance(paths, Path) else paths
    return joined(inputs.read_all(inputs.plan(paths, about), about, **options), about)


def joined(chunks, about=None):
    chunks = list(chunks)
    shape = (about or subject()).shape
    return inputs.Chunk(
        images=np.concatenate([np.empty((0, *shape), np.uint8), *(c.images for c in chunks)]),
        labels=np.concatenate([np.empty(0, np.uint8), *(c.labels for c in chunks)]),
        groups=[group for chunk in chunks for group in chunk.groups],
        names=[name for chunk in chunks for name in chunk.names],
        refused=[refused for chunk in chunks for refused in chunk.refused],
    )


def reasons(chunk):
    return {refused.what: refused.reason for refused in chunk.refused}


def floats(images):
    """A column as our table has it."""
    values = pa.array((images.reshape(len(images), -1) / 255).astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(values, int(np.prod(images.shape[1:])))


def parquet(path, metadata=None, *, row_group_size=None, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (metadata or {}).items()
    }
    table = pa.table(columns).replace_schema_metadata(texts or None)
    pq.write_table(table, path, row_group_size=row_group_size, compression="zstd")
    return path


def encoded(pictures):
    """A column as Hugging Face writes it, of bytes or None."""
    rows = [{"bytes": data, "path": None} for data in pictures]
    return pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def pair(folder, images, labels, end=""):
    """Two IDX files; a name that ends in .gz is gzipped."""
    import gzip

    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        path = folder / f"{name}{end}"
        idx.write(path, np.asarray(array, np.uint8))
        if end:
            path.write_bytes(gzip.compress(path.read_bytes()))
    return folder
