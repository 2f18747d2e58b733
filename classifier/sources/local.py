"""A local folder as a source: four IDX files, or pictures in folders."""

import hashlib
from pathlib import Path

from classifier.declaration import Dataset
from classifier.errors import InputError
from classifier.sources import FILES, image_folders

#: The usual name of each of FILES, without its end; test files are called t10k or test.
STEMS = {
    "train-images.idx": ("train-images",),
    "train-labels.idx": ("train-labels",),
    "test-images.idx": ("t10k-images", "test-images"),
    "test-labels.idx": ("t10k-labels", "test-labels"),
}
HOW_TO_SUPPLY = (
    "Give --source DIR with the four IDX files, gzipped or not: train-images…, train-labels…, "
    "t10k-images…, t10k-labels…; or with pictures in train/CLASS/ and test/CLASS/"
)


def content_digest(local: Path) -> str:
    """Return the SHA-256 of what would be read from that folder, wherever it lies.

    Raises:
        InputError: it cannot be read, or holds neither IDX files nor pictures.
    """
    lines = []
    for name, path in sorted(_readable(local).items()):
        lines.append(f"{name} {sha256(path)}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for
        raise InputError(f"{path} is not a regular file: remove it.")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _readable(local: Path) -> dict[str, Path]:
    """Return the files of a local folder that count, by the name under which they count."""
    try:
        names = sorted(path.name for path in local.iterdir())
    except OSError as error:
        raise InputError(f"{local} cannot be read: {error.strerror}. {HOW_TO_SUPPLY}.") from error
    halves = [split for split in image_folders.SPLITS if (local / split).is_dir()]
    stems = tuple(stem for each in STEMS.values() for stem in each)
    if len(halves) == 1 and not any(name.startswith(stems) for name in names):
        (missing,) = set(image_folders.SPLITS) - set(halves)
        raise InputError(f"{local} has a folder {halves[0]} and none {missing}: both are needed.")
    shown = {path.relative_to(local).as_posix(): path for path in image_folders.files(local)}
    return shown or {name: local / _only(stems, names, local) for name, stems in STEMS.items()}


def _only(stems: tuple[str, ...], names: list[str], local: Path) -> str:
    """Return the one name that starts with a stem."""
    candidates = [name for name in names if name.startswith(stems)]
    if not candidates:
        held = ", ".join(names[:10]) or "nothing"
        raise InputError(f"{local} has no file for {stems[0]}; it holds {held}. {HOW_TO_SUPPLY}.")
    if len(candidates) > 1:
        raise InputError(
            f"{local} has several files for {stems[0]}: {', '.join(candidates)}. Leave one of them."
        )
    return candidates[0]


def unpack(dataset: Dataset, local: Path, folder: Path) -> None:
    """Write the FILES into a folder, from IDX files or from pictures.

    Raises:
        InputError: a file is missing or damaged.
    """
    from classifier.data import idx

    files = _readable(local)
    if set(files) == set(FILES):
        for name, path in files.items():
            idx.unpack(path, folder / name)
    else:
        image_folders.to_idx(dataset, local, folder)
