"""Normalise and read-back against pandas, and the memory that normalise takes."""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import data
from benchmarks.clock import Row, interleaved
from classifier import datasets
from classifier.data import idx, tables
from classifier.data.parts import official


def rows(raw: data.Raw, *, quick: bool) -> Iterator[Row]:
    """Writing and reading 60,000 images."""
    images, labels = raw["train-images"], raw["train-labels"]
    classes = datasets.load("mnist").classes or ()
    about = tables.Description(dataset="mnist", shape=(28, 28), classes=classes, source="-")
    repeats = 1 if quick else 5
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name) / "ours", Path(name) / "pandas.parquet"
        part = ours / "train" / "part-00000.parquet"
        frame = pd.DataFrame(data.pixels(images).reshape(len(images), -1))
        frame.columns = [f"pixel{number}" for number in frame.columns]
        frame["label"] = labels
        write = {
            "ours": lambda: tables.write(part, images, labels, about),
            "peer": lambda: frame.to_parquet(theirs, compression="zstd"),
        }
        seconds = interleaved(write, repeats)
        yield Row(
            what="write 60,000 images to Parquet",
            ours=seconds["ours"],
            peer=seconds["peer"],
            peer_is="`DataFrame.to_parquet`, zstd",
            unit="s",
            goal="",
            clock="from bytes in memory to a closed file, ours with the division by 255",
        )
        read = {
            "ours": lambda: torch.from_numpy(official(ours, "train").read()[0]),
            "peer": lambda: torch.from_numpy(
                pd.read_parquet(theirs).iloc[:, :-1].to_numpy(dtype=np.float32)
            ),
        }
        seconds = interleaved(read, repeats)
        yield Row(
            what="read 60,000 images to a tensor",
            ours=seconds["ours"],
            peer=seconds["peer"],
            peer_is="`pandas.read_parquet`",
            unit="s",
            goal="at most 0.15 s",
            clock="from a file in the page cache to one float32 tensor",
        )


def memory_rows(raw: data.Raw, *, quick: bool) -> Iterator[Row]:
    """Peak memory of normalise, in a process of its own, by number of rows."""
    times = 2 if quick else 10
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        for copies in (1, times):
            folder = Path(name) / str(copies)
            folder.mkdir()
            for file, array in raw.items():
                repeated = np.broadcast_to(array, (copies, *array.shape)).reshape(
                    -1, *array.shape[1:]
                )
                idx.write(folder / f"{file}.idx", repeated)
            command = [sys.executable, "-m", "benchmarks.parquet", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout))
    yield Row(
        what=f"peak memory of normalise, {70_000 * times:,} rows",
        ours=peaks[1],
        peer=peaks[0],
        peer_is="70,000 rows",
        unit="MiB",
        goal="equal within 10 %",
        clock="largest resident set of the process, interpreter and libraries included",
    )


def _normalise(folder: Path) -> None:
    """What the normalise step does, without Prefect; prints the peak in MiB."""
    from tasks.normalise import write_tables

    with tempfile.TemporaryDirectory() as target:
        write_tables(folder, Path(target), "mnist", source="-", limit=None, classes=None)
    print(_peak())


def _peak() -> float:
    """Largest resident set so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage() would count what the parent held before it started us
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    _normalise(Path(sys.argv[1]))
