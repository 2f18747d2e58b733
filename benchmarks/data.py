"""The real data for all benchmarks, from the project's own sources."""

from pathlib import Path

import numpy as np

from classifier import datasets
from classifier.data import idx
from classifier.sources import fetch
from tasks.download import local_source

Raw = dict[str, np.ndarray]


def raw(folder: Path, dataset: str = "mnist", source: Path | None = None) -> Raw:
    """Return the four arrays, uint8, fetched into the folder unless they are there.

    Args:
        folder: to hold the files.
        dataset: its name.
        source: local folder to take them from; RETRAIN_SOURCE, else the public sources, by default.
    """
    if not any(folder.iterdir()):
        fetch.fetch(
            datasets.load(dataset),
            folder,
            local_folder=source or local_source(),
            progress=lambda *_: None,
        )
    return {path.stem: idx.read(path) for path in sorted(folder.glob("*.idx"))}


def pixels(images: np.ndarray) -> np.ndarray:
    """float32 in 0..1."""
    return images.astype(np.float32) / 255
