"""Rows a second of `ingest`'s reading, beside a plain loop: python -m benchmarks.ingest [--quick].

The clock of ours includes planning, starting processes, reading, checking and handing all chunks
over, in order. Where other work has the second core, the processor time of one process tells
more. The plain loop is Pillow and NumPy in one process, and gives the same rows.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from classifier import datasets
from classifier.data import idx, inputs, tables

Rows = tuple[np.ndarray, np.ndarray]
Loop = Callable[[Path, inputs.Subject], Rows]


def ours(path: Path, subject: inputs.Subject, workers: int | None = None) -> Rows:
    """Images and labels of all good rows."""
    chunks = list(inputs.read_all(inputs.plan([path], subject), subject, workers=workers))
    return (
        np.concatenate([chunk.images for chunk in chunks]),
        np.concatenate([chunk.labels for chunk in chunks]),
    )


def _checked(rows: Iterator[tuple[np.ndarray, int]]) -> Rows:
    """What every plain loop ends with: blank images are left out."""
    images, labels = [], []
    for image, label in rows:
        if image.min() != image.max():
            images.append(image)
            labels.append(label)
    return np.stack(images), np.array(labels, np.uint8)


def plain_pictures(path: Path, subject: inputs.Subject) -> Rows:
    """A folder a class."""

    def rows() -> Iterator[tuple[np.ndarray, int]]:
        for label, name in enumerate(subject.classes):
            for file in sorted((path / name).iterdir()):
                with Image.open(file) as picture:
                    yield subject.prepare(picture, subject.shape), label

    return _checked(rows())


def plain_encoded(path: Path, subject: inputs.Subject) -> Rows:
    """Hugging Face's form."""

    def rows() -> Iterator[tuple[np.ndarray, int]]:
        for row in pq.read_table(path).to_pylist():
            with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
                yield subject.prepare(picture, subject.shape), row["label"]

    return _checked(rows())


def plain_table(path: Path, subject: inputs.Subject) -> Rows:
    """Our schema; a row at a time, as NumPy."""

    def rows() -> Iterator[tuple[np.ndarray, int]]:
        table = pq.read_table(path)
        for value, label in zip(table["image"], table["label"].to_pylist(), strict=True):
            pixels = value.values.to_numpy().reshape(subject.shape)
            yield np.rint(pixels * 255).astype(np.uint8), label

    return _checked(rows())


def plain_idx(path: Path, _: inputs.Subject) -> Rows:
    """Gzipped IDX."""
    images = idx.read(path / "train-images-idx3-ubyte.gz")
    labels = idx.read(path / "train-labels-idx1-ubyte.gz")
    return _checked(zip(images, labels.tolist(), strict=True))


def render(folder: Path, images: np.ndarray, labels: np.ndarray) -> dict[str, tuple[Path, Loop]]:
    """Write the rows in each form."""
    import gzip

    encoded = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": f"{number}.png"})
        path = folder / "png" / str(label) / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())
    hugging_face = folder / "hugging-face.parquet"
    pq.write_table(pa.table({"image": encoded, "label": labels}), hugging_face, row_group_size=1000)
    about = tables.Description(
        dataset="mnist", shape=(28, 28), classes=tuple("0123456789"), source="-"
    )
    tables.write(folder / "table.parquet", images, labels, about)
    (folder / "idx").mkdir()
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        idx.write(folder / "plain", array)
        packed = gzip.compress((folder / "plain").read_bytes(), 6)
        (folder / "idx" / f"{name}.gz").write_bytes(packed)
    return {
        "PNG in folders": (folder / "png", plain_pictures),
        "Parquet of pictures": (hugging_face, plain_encoded),
        "Parquet table": (folder / "table.parquet", plain_table),
        "IDX, gzipped": (folder / "idx", plain_idx),
    }


def _timed(run: Callable[[], Rows], seconds: list[float]) -> Callable[[], Rows]:
    """Also note the processor time, which tells more on a machine that others use."""

    def timed() -> Rows:
        start = time.process_time()
        rows = run()
        seconds.append(time.process_time() - start)
        return rows

    return timed


def main() -> None:
    """Print a line for each form."""
    from benchmarks import clock, data  # load torch; a process that starts imports this module

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 rows, once")
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    options = parser.parse_args()
    count, repeats = (2_000, 1) if options.quick else (20_000, 3)
    with tempfile.TemporaryDirectory() as folder:
        raw = data.raw(Path(folder), "mnist", options.source)
    images, labels = raw["train-images"][:count], raw["train-labels"][:count]
    mnist = datasets.load("mnist")
    subject = inputs.Subject(
        dataset="mnist", shape=(28, 28), classes=tuple("0123456789"), prepare=mnist.prepare
    )
    print(f"{clock.machine()}; {count:,} rows, interleaved medians of {repeats}\n")
    print(
        "| form | ours, rows/s | ours, one process | plain loop | ours / plain "
        "| processor time, one process, us a row | plain loop |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        for form, (path, loop) in render(Path(name), images, labels).items():
            here, there = ours(path, subject), loop(path, subject)
            if not all(np.array_equal(one, other) for one, other in zip(here, there, strict=True)):
                raise SystemExit(f"{form}: the rows differ")
            processor: dict[str, list[float]] = {"alone": [], "plain": []}
            seconds = clock.interleaved(
                {
                    "ours": partial(ours, path, subject),
                    "alone": _timed(partial(ours, path, subject, 1), processor["alone"]),
                    "plain": _timed(partial(loop, path, subject), processor["plain"]),
                },
                repeats,
                warm_up=False,
            )
            rates = {who: f"{count / each:,.0f}" for who, each in seconds.items()}
            cpu = {who: median(each) / count * 1e6 for who, each in processor.items()}
            ratio = seconds["plain"] / seconds["ours"]
            print(
                f"| {form} | {rates['ours']} | {rates['alone']} | {rates['plain']} | {ratio:.2f} "
                f"| {cpu['alone']:.1f} | {cpu['plain']:.1f} |",
                flush=True,
            )
    print(f"\n{clock.machine()}")


if __name__ == "__main__":
    main()
