"""Pictures in folders: train/<class>/… and test/<class>/…, brought to one shape and to IDX."""

import warnings
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.datasets import Dataset
from classifier.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
SPLITS = ("train", "test")


def files(folder: Path) -> list[Path]:
    """All pictures below its train and test, in a fixed order; none without both of these."""
    if not all((folder / split).is_dir() for split in SPLITS):
        return []
    found = (path for split in SPLITS for path in (folder / split).glob("*/*"))
    return sorted(path for path in found if path.suffix.lower() in ENDINGS)


def to_idx(dataset: Dataset, folder: Path, target: Path) -> None:
    """Write the four IDX files of a dataset from pictures, each brought to its shape.

    The classes take turns, so that the first rows of a table hold all of them.

    Raises:
        BadInput: a class is unknown or empty, a picture is damaged or prepared wrongly, or this
            dataset cannot be made of pictures.
    """
    import numpy as np

    from classifier import idx

    if dataset.shape is None or dataset.classes is None or dataset.digests:
        lacks = "takes other files" if dataset.digests else "names no shape and classes"
        raise BadInput(
            f"{folder} holds pictures, but dataset {dataset.name!r} {lacks}: declare one for them "
            "in a file of classifier/datasets/."
        )
    for split in SPLITS:
        rows = list(_rows(dataset.classes, folder / split))
        images = np.empty((len(rows), *dataset.shape), dtype=np.uint8)
        for number, (path, _) in enumerate(rows):
            images[number] = _read(path, dataset, dataset.shape)
        labels = np.array([label for _, label in rows], dtype=np.uint8)
        idx.write(target / f"{split}-images.idx", images)
        idx.write(target / f"{split}-labels.idx", labels)


def _rows(classes: tuple[str, ...], folder: Path) -> list[tuple[Path, int]]:
    """The pictures of a split with their labels: the first of each class, then the second."""
    unknown = sorted(path.name for path in folder.iterdir() if path.is_dir())
    unknown = [name for name in unknown if name not in classes]
    if unknown:
        raise BadInput(f"{folder / unknown[0]} is no class: they are {', '.join(classes)}.")
    shelves = []
    for label, name in enumerate(classes):
        found = sorted((folder / name).glob("*"))
        shelf = [(path, label) for path in found if path.suffix.lower() in ENDINGS]
        if not shelf:
            raise BadInput(f"{folder / name} holds no pictures: each class needs some.")
        shelves.append(shelf)
    return [row for turn in zip_longest(*shelves) for row in turn if row is not None]


def _read(path: Path, dataset: Dataset, shape: tuple[int, ...]) -> "np.ndarray":
    import numpy as np

    prepared = dataset.prepare(_decoded(path), shape)
    if prepared.shape != shape or prepared.dtype != np.uint8:
        raise BadInput(
            f"`prepare` of {dataset.name} made {prepared.dtype} {prepared.shape} of {path}, not "
            f"uint8 {shape}."
        )
    return prepared


def _decoded(path: Path) -> "Image.Image":
    """The picture with its pixels: what `prepare` raises is then its own."""
    from PIL import Image

    bombs = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
                return picture
    except (OSError, ValueError, SyntaxError, *bombs) as error:
        raise BadInput(f"{path} is no picture that can be read ({error}): remove it.") from error
