"""The duplicate and leak check of a manifest: 600,000 new rows beside the 70,000 of MNIST.

    python -m benchmarks.new_data [--source FOLDER] [--quick]

The new rows are MNIST's train images, each ten times, turned and scaled at random, so that hardly
one is a copy. A fifth of them goes to the recent test set, with which the others are compared too.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import data
from classifier import datasets
from classifier.data import batches, tables
from classifier.data.combine import Source, combine
from classifier.data.inputs import Chunk

COPIES, QUICK_COPIES = 10, 1


def main() -> None:
    """Print seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.folder:
        _combine(asked.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "raw").mkdir()
        raw = data.raw(folder / "raw", "mnist", asked.source)
        rows = _write(folder, raw, QUICK_COPIES if asked.quick else COPIES)
        command = [sys.executable, "-m", "benchmarks.new_data", "--folder", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(f"{rows:,} new rows beside {60_000 + 10_000:,}: {done.stdout.strip()}")


def _write(folder: Path, raw: data.Raw, copies: int) -> int:
    about = tables.Description(
        dataset="mnist",
        shape=(28, 28),
        classes=datasets.load("mnist").classes or (),
        source="-",
    )
    for split in tables.SPLITS:
        path = folder / "base" / split / "part-00000.parquet"
        tables.write(path, raw[f"{split}-images"], raw[f"{split}-labels"], about)
    (folder / "batch").mkdir()
    batches.write(folder / "batch", _chunks(raw, copies), about)
    return copies * len(raw["train-labels"])


def _chunks(raw: data.Raw, copies: int) -> Iterator[Chunk]:
    images, labels = raw["train-images"], raw["train-labels"]
    for copy in range(copies):
        for start in range(0, len(labels), 10_000):
            part = _changed(images[start : start + 10_000], seed=10 * copy + start)
            names = [""] * len(part)
            yield Chunk(
                images=part,
                labels=labels[start : start + 10_000],
                groups=[None] * len(part),
                names=names,
                refused=[],
            )


def _changed(images: np.ndarray, seed: int) -> np.ndarray:
    import torch  # here, so that the process that is measured does without

    from classifier.training.augmentation import augment

    pixels = torch.from_numpy(images.astype(np.float32) / 255)
    generator = torch.Generator().manual_seed(seed)
    changed = augment(pixels, generator, shift=0, rotation=30, scale=0.2, elastic=1)
    return (changed.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _combine(folder: Path) -> None:
    before = _peak()
    started = time.perf_counter()
    made = combine(
        Source(kind="tables", digest="0" * 64, folder=folder / "base"),
        [Source(kind="batches", digest="1" * 64, folder=folder / "batch")],
        {},
        classes=10,
    )
    seconds = time.perf_counter() - started
    peak = _peak()
    print(
        f"{seconds:.1f} s, peak memory {peak:.0f} MiB, of which {before:.0f} MiB before; "
        f"{len(made.left_out):,} rows left out"
    )


def _peak() -> float:
    """Largest resident set so far, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
