"""Near-copies of test images: speed, memory, recall on planted rows, and honest rows refused.

    python -m benchmarks.near --source DIR

Planted rows are test images, each shifted by up to two pixels in both directions at random, coded
as JPEG, or both. Honest rows are the train split, which other people wrote. The clock of a search
includes `find` alone, in calls of 10,000 rows; that of the index includes its coding noise.
"""

import argparse
import io
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import clock, data
from classifier.data.near import NearIndex

CALL_ROWS = 10_000
REACH = 2  # pixels
QUALITIES = (75, 85, 95)
GREY_STEPS = (4, 16)


def main() -> None:
    """Measure, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    parser.add_argument("--repeat", type=int, default=10, help="times that the train rows come")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = data.raw(Path(folder), options.dataset, options.source)
    train, test = raw["train-images"], raw["test-images"]
    print(f"{options.dataset}. {clock.machine()}\n")
    before = _peak_mebibytes()
    start = time.perf_counter()
    index = NearIndex(test)
    print(f"Index of {len(test):,} test images: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    refused = sum(_found(index, train).sum() for _ in range(options.repeat))
    seconds, rows = time.perf_counter() - start, options.repeat * len(train)
    print(f"Search of {rows:,} rows: {seconds:.1f} s, {rows / seconds:,.0f} rows a second")
    print(f"Peak memory: {_peak_mebibytes():.0f} MiB, {before:.0f} MiB of it before the index")
    print(f"Honest rows found near: {refused // options.repeat} of {len(train):,}\n")
    print("| planted | found | as the right image |")
    print("|---|---:|---:|")
    for kind, planted in _planted(test, np.random.default_rng(0)):
        found = index.find(planted)
        shares = (found >= 0).mean(), (found == np.arange(len(test))).mean()
        print(f"| {kind} | {100 * shares[0]:.2f} % | {100 * shares[1]:.2f} % |")
    print(f"\n{clock.machine()}")


def _found(index: NearIndex, rows: np.ndarray) -> np.ndarray:
    calls = range(0, len(rows), CALL_ROWS)
    return np.concatenate([index.find(rows[call : call + CALL_ROWS]) >= 0 for call in calls])


def _planted(test: np.ndarray, generator: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    yield "exact", test
    yield from ((f"rounded to steps of {step}", _rounded(test, step)) for step in GREY_STEPS)
    yield from ((f"JPEG {quality}", _coded(test, quality)) for quality in QUALITIES)
    for border, mode in (("background", "constant"), ("repeated edge", "edge")):
        shifted = _shifted(test, mode, generator)
        yield f"shift, {border}", shifted
        for quality in QUALITIES:
            yield f"shift, {border}, JPEG {quality}", _coded(shifted, quality)


def _shifted(images: np.ndarray, mode: str, generator: np.random.Generator) -> np.ndarray:
    height, width = images.shape[1:3]
    fill = ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0))[: images.ndim]
    padded = np.pad(images, fill, mode=mode)  # type: ignore[call-overload]
    corners = generator.integers(0, 2 * REACH + 1, (len(images), 2))
    return np.stack(
        [row[y : y + height, x : x + width] for row, (y, x) in zip(padded, corners, strict=True)]
    )


def _coded(images: np.ndarray, quality: int) -> np.ndarray:
    coded = np.empty_like(images)
    for number, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        coded[number] = np.asarray(Image.open(file))
    return coded


def _rounded(images: np.ndarray, step: int) -> np.ndarray:
    rounded: np.ndarray = np.minimum(np.rint(images / step) * step, 255).astype(np.uint8)
    return rounded


def _peak_mebibytes() -> float:
    """Return the most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1 << 10  # bytes on macOS, else kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 20)


if __name__ == "__main__":
    main()
