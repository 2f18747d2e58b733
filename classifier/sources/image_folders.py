"""Pictures in folders, train/<class>/… and test/<class>/…, brought to one shape and to IDX."""

import json
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.declaration import MAX_CLASSES, MIN_CLASSES, Dataset
from classifier.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # all that is decoded, whatever the ending
SPLITS = ("train", "test")
CLASSES = "classes.json"  # beside the IDX files, where the names are those of folders


def files(folder: Path) -> list[Path]:
    """Return all pictures below train and test, in a fixed order; none without both folders."""
    if not all((folder / split).is_dir() for split in SPLITS):
        return []
    found = (path for split in SPLITS for path in (folder / split).glob("*/*"))
    return sorted(path for path in found if path.suffix.lower() in ENDINGS)


def to_idx(dataset: Dataset, folder: Path, target: Path) -> None:
    """Write the four IDX files of a dataset from pictures, each brought to its shape.

    The classes take turns, so that the first rows of a table hold all of them.

    Raises:
        InputError: a class is unknown or empty, a picture is damaged or prepared wrongly, or this
            dataset cannot be made of pictures.
    """
    import numpy as np

    from classifier.data import idx

    if dataset.shape is None or dataset.digests:
        raise InputError(
            f"{folder} holds pictures, but dataset {dataset.name!r} "
            + (
                "takes other files: declare one for them in a file of classifier/datasets/."
                if dataset.digests
                else "names no shape: give --image-size, such as 64x64 or 64x64x3."
            )
        )
    classes = dataset.classes or _class_names(folder / "train")
    if dataset.classes is None:
        (target / CLASSES).write_text(json.dumps(classes), encoding="utf-8")
    for split in SPLITS:
        rows = list(_rows(classes, folder / split))
        images = np.empty((len(rows), *dataset.shape), dtype=np.uint8)
        for number, (path, _) in enumerate(rows):
            images[number] = _read(path, dataset, dataset.shape)
        labels = np.array([label for _, label in rows], dtype=np.uint8)
        idx.write(target / f"{split}-images.idx", images)
        idx.write(target / f"{split}-labels.idx", labels)


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders.

    Raises:
        InputError: there are fewer than two, or more than a label can tell apart.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(names) not in range(MIN_CLASSES, MAX_CLASSES + 1):
        raise InputError(
            f"{folder} has {len(names)} class folders: there are {MIN_CLASSES} to {MAX_CLASSES} "
            "classes."
        )
    return tuple(names)


def _rows(classes: tuple[str, ...], folder: Path) -> list[tuple[Path, int]]:
    """Return the pictures of a split with their labels, the classes taking turns."""
    unknown = sorted(path.name for path in folder.iterdir() if path.is_dir())
    unknown = [name for name in unknown if name not in classes]
    if unknown:
        raise InputError(
            f"{folder / unknown[0]} is not a class: the classes are {', '.join(classes)}."
        )
    by_class = []
    for label, name in enumerate(classes):
        found = sorted((folder / name).glob("*"))
        pictures = [(path, label) for path in found if path.suffix.lower() in ENDINGS]
        if not pictures:
            raise InputError(f"{folder / name} holds no pictures: each class needs some.")
        by_class.append(pictures)
    return [row for turn in zip_longest(*by_class) for row in turn if row is not None]


def _read(path: Path, dataset: Dataset, shape: tuple[int, ...]) -> "np.ndarray":
    import numpy as np

    prepared = dataset.prepare(_decoded(path), shape)
    if prepared.shape != shape or prepared.dtype != np.uint8:
        raise InputError(
            f"`prepare` of {dataset.name} made {prepared.dtype} {prepared.shape} of {path}, not "
            f"uint8 {shape}."
        )
    return prepared


def _decoded(path: Path) -> "Image.Image":
    """Decode the picture, so that what `prepare` raises is its own."""
    from classifier.data.inputs import decoding

    try:
        with decoding.quiet():
            return decoding.decoded(path.read_bytes())
    except (*decoding.BOMBS, *decoding.DAMAGE) as error:
        raise InputError(f"{path} is not a readable picture ({error}): remove it.") from error
