"""A local folder as a source: four IDX files, or pictures in folders."""

import hashlib
from pathlib import Path

from classifier.datasets import FILES, Dataset
from classifier.errors import BadInput
from tasks import artifacts, pictures

#: The customary name of each of FILES, without its end; test files are called t10k or test.
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


def content(local: Path) -> str:
    """SHA-256 of what would be read from that folder, wherever it lies.

    Raises:
        BadInput: it cannot be read, or holds neither IDX files nor pictures.
    """
    lines = []
    for name, path in sorted(_readable(local).items()):
        lines.append(f"{name} {_sha256(path)}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        return artifacts.sha256(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error


def _readable(local: Path) -> dict[str, Path]:
    """The files in a local folder that count, by the name under which they count."""
    try:
        names = sorted(path.name for path in local.iterdir())
    except OSError as error:
        raise BadInput(f"{local} cannot be read: {error.strerror}. {HOW_TO_SUPPLY}.") from error
    shown = {path.relative_to(local).as_posix(): path for path in pictures.files(local)}
    return shown or {name: local / _only(stems, names, local) for name, stems in STEMS.items()}


def _only(stems: tuple[str, ...], names: list[str], local: Path) -> str:
    """The one name that begins with a stem."""
    candidates = [name for name in names if name.startswith(stems)]
    if not candidates:
        held = ", ".join(names[:10]) or "nothing"
        raise BadInput(f"{local} has no file for {stems[0]}; it holds {held}. {HOW_TO_SUPPLY}.")
    if len(candidates) > 1:
        raise BadInput(
            f"{local} has several files for {stems[0]}: {', '.join(candidates)}. Leave one of them."
        )
    return candidates[0]


def unpack(dataset: Dataset, local: Path, folder: Path) -> None:
    """Write the FILES into a folder, from IDX files or from pictures.

    Raises:
        BadInput: a file is missing or damaged.
    """
    from classifier import idx

    files = _readable(local)
    if set(files) == set(FILES):
        for name, path in files.items():
            idx.unpack(path, folder / name)
    else:
        pictures.to_idx(dataset, local, folder)
