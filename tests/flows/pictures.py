"""New data in all its forms, made of the fixture's real digits, and a data root to take it in.

Of the fixture's 800 train and 200 test images, the first 400 and the 200 are what was published;
the other 400 come in as new data.
"""

import contextlib
import gzip
import hashlib
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import FIXTURE, Done

PUBLISHED = 400
IDX_NAMES = {
    ("train", "images"): "train-images-idx3-ubyte.gz",
    ("train", "labels"): "train-labels-idx1-ubyte.gz",
    ("test", "images"): "t10k-images-idx3-ubyte.gz",
    ("test", "labels"): "t10k-labels-idx1-ubyte.gz",
}


def read_idx(path):
    """The values of an IDX file of bytes, plain or gzipped."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    dimensions = data[3]
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write_idx(path, values):
    """Write an IDX file of bytes; gzipped where the name says so."""
    header = struct.pack(f">2x2B{values.ndim}I", 8, values.ndim, *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def fixture(split, kind):
    return read_idx(FIXTURE / IDX_NAMES[split, kind])


def published():
    """Images and labels of the published train rows."""
    return fixture("train", "images")[:PUBLISHED], fixture("train", "labels")[:PUBLISHED].copy()


def tested():
    """Images and labels of the published test rows."""
    return fixture("test", "images"), fixture("test", "labels").copy()


def new(start=0, stop=None):
    """Images and labels of rows that were not published."""
    rows = slice(PUBLISHED + start, None if stop is None else PUBLISHED + stop)
    return fixture("train", "images")[rows].copy(), fixture("train", "labels")[rows].copy()


def clothes():
    """Images and labels of the wrong subject: 300 rows of Fashion-MNIST."""
    folder = FIXTURE.parent / "fashion_mnist"
    images, labels = (read_idx(folder / IDX_NAMES["test", kind]) for kind in ("images", "labels"))
    return images, labels.copy()


def write_source(folder, train=None, test=None):
    """Write the four files of a source; returns the folder."""
    for split, (images, labels) in (("train", train or published()), ("test", test or tested())):
        write_idx(folder / IDX_NAMES[split, "images"], images)
        write_idx(folder / IDX_NAMES[split, "labels"], labels)
    return folder


def digest(image):
    """SHA-256 of the pixels, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(image, np.uint8).tobytes()).hexdigest()


# The four forms.


def as_folders(folder, images, labels, *, names=None, group=None, first=0):
    """A folder a class with a PNG an image, of the very pixels; returns the folder."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True), first):
        place = folder / str(names[label] if names else label)
        place = place / group if group else place
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04d}.png")
    return folder


def in_odd_forms(folder, images, labels):
    """The same in three times the size and in other modes and formats; returns the folder."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        large = Image.fromarray(image).resize((84, 84), Image.Resampling.LANCZOS)
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        match number % 4:
            case 0:
                large.convert("RGB").save(place / f"{number:04d}.jpg", quality=95)
            case 1:
                large.convert("RGBA").save(place / f"{number:04d}.png")
            case 2:
                large.convert("P").save(place / f"{number:04d}.gif")
            case _:
                large.save(place / f"{number:04d}.bmp")
    return folder


def as_hugging_face(path, images, labels, *, names=None):
    """Parquet of encoded pictures with class names in its metadata; returns the path."""

    def encoded(image):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    names = names or [str(number) for number in range(10)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([encoded(image) for image in images], kind),
            "label": pa.array(labels.tolist(), pa.int64()),
        }
    )
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path)
    return path


def as_table(path, images, labels, *, groups=None):
    """Parquet of float32 lists in 0..1; returns the path."""
    pixels = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    columns = {
        "image": pa.array(list(pixels), pa.list_(pa.float32(), pixels.shape[1])),
        "label": pa.array(labels.tolist(), pa.uint8()),
    }
    if groups is not None:
        columns["group"] = pa.array(groups)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def as_idx(folder, images, labels, *, stem="new"):
    """A pair of IDX files; returns their paths."""
    found = [folder / f"{stem}-images.idx", folder / f"{stem}-labels.idx"]
    for path, values in zip(found, (images, labels), strict=True):
        write_idx(path, values)
    return found


# What lies below a folder, read without the project's code.


def rows_below(folder):
    """Digest of every decoded image of 28 x 28 in every file below the folder: {digest: paths}."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            for image in _images_in(path):
                if image.shape == (28, 28):
                    found.setdefault(digest(image), set()).add(path)
    return found


def _images_in(path):
    head = path.read_bytes()[:4]
    if head == b"PAR1":
        for column in pq.read_table(path).columns:
            yield from _of_column(column)
    elif path.suffix == ".npz":
        for values in np.load(path).values():
            if values.ndim == 3:
                yield from values
    elif head[:3] == b"\0\0\x08" or (path.suffix == ".gz" and head[:2] == b"\x1f\x8b"):
        values = read_idx(path)
        if values.ndim == 3:
            yield from values
    else:
        with contextlib.suppress(OSError):
            yield prepared(path)


def _of_column(column):
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and kind.list_size == 784:
        values = column.combine_chunks().flatten().to_numpy()
        yield from np.rint(values * np.float32(255)).astype(np.uint8).reshape(-1, 28, 28)
    elif pa.types.is_struct(kind):
        for value in column.to_pylist():
            yield prepared(io.BytesIO(value["bytes"]))
    elif pa.types.is_binary(kind):
        for value in column.to_pylist():
            if value is not None and len(value) == 784:
                yield np.frombuffer(value, np.uint8).reshape(28, 28)


def prepared(file):
    """A picture as the dataset `folder` takes it: grey, 28 x 28."""
    with Image.open(file) as picture:
        grey = picture.convert("L")
    return np.asarray(grey.resize((28, 28), Image.Resampling.LANCZOS))


# A data root.


@dataclass
class Root:
    """A data root and a source, and the command line within this process."""

    folder: Path
    dataset: str = "folder"

    def __call__(self, *arguments):
        from flows.cli.app import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, *arguments, code=0):
        done = self(*arguments, "--dataset", self.dataset, "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    def ingest(self, *paths, code=0):
        return self.json("ingest", *paths, code=code)

    def data(self, command, *arguments):
        return self.json("data", command, *arguments)

    def train(self, *options, recipe="post", epochs=3, code=0):
        quick = ("--recipe", recipe, "--epochs", epochs, "--grid.rows", "1", "--grid.columns", "2")
        return self.json("train", *quick, *options, code=code)

    def report(self, result):
        return json.loads((self.folder / result["report"] / "report.json").read_text())

    def events(self):
        """The log: kind and what it says, the oldest first."""
        paths = sorted((self.folder / "store" / "log").glob("*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def stored(self):
        """Every path of the store, to see whether anything was stored."""
        return sorted(path for path in (self.folder / "store").rglob("*") if path.is_file())


@contextlib.contextmanager
def data_root(folder, source):
    """A data root of its own while the block runs; in this process only one at a time."""
    from flows.cli.app import SETTINGS

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_DATA", str(folder))
        patch.setenv("RETRAIN_SOURCE", str(source))
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        yield Root(folder)
