"""The real MNIST for all benchmarks, through the project's own steps."""

from pathlib import Path

import numpy as np

from classifier import datasets, idx
from tasks import artifacts, sources

Raw = dict[str, np.ndarray]


def raw(folder: Path) -> Raw:
    """The four arrays, uint8, obtained once into the folder from whichever source answers."""
    if not any(folder.iterdir()):
        mnist = datasets.load("mnist")
        sources.obtain(mnist, folder, local=artifacts.local_source(), progress=lambda *_: None)
    return {path.stem: idx.read(path) for path in sorted(folder.glob("*.idx"))}


def pixels(images: np.ndarray) -> np.ndarray:
    """float32 in 0..1."""
    return images.astype(np.float32) / 255
