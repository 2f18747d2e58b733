"""The published rows that were used last, and what rows must be like; found without Prefect."""

from typing import TYPE_CHECKING

from artifacts import keys, records
from artifacts.artifact import Artifact, find_damage
from artifacts.errors import ArgumentError, InputError
from classifier import datasets

if TYPE_CHECKING:
    from classifier.data.inputs import Subject


def last_base(dataset: str) -> Artifact | None:
    """Return the table of all published rows that was used last, if it is intact."""
    found = records.everything(f"normalise/{dataset}")
    for record in sorted(found, key=lambda each: each.last_used, reverse=True):
        limited = keys.parameters(record.components()).get("limit", 0) is not None
        if not limited and find_damage(record.artifact) is None:
            return record.artifact
    return None


def known_base(dataset: str) -> Artifact:
    """Return the same.

    Raises:
        InputError: there is none.
    """
    base = last_base(dataset)
    if base is None:
        raise InputError(f"{dataset} has no published rows here yet: train or ingest first.")
    return base


def check_size(dataset: str, base: Artifact, size: tuple[int, ...] | None) -> None:
    """Check a given size of the images against that of the published rows.

    Raises:
        ArgumentError: they differ.
    """
    from classifier.data.parts import official

    there = official(base.path).description.shape
    if size not in {None, there}:
        wanted, known = ("x".join(map(str, each)) for each in (size or (), there))
        raise ArgumentError(
            f"--image-size is {wanted}, and the published rows of {dataset} are {known}: leave it "
            "out."
        )


def class_names(dataset: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Return what labels of the classes `before` are called now.

    Raises:
        InputError: the classes were reordered, or one was removed.
    """
    now = datasets.load(dataset).classes or before
    datasets.check_classes(dataset, before, now)
    return now


def subject_of(dataset: str, base: Artifact) -> "Subject":
    """Return what new rows must be: like the published ones, in the classes declared now.

    Raises:
        InputError: as `class_names`.
    """
    from classifier.data.inputs import Subject
    from classifier.data.parts import official

    description = official(base.path).description
    return Subject(
        dataset=dataset,
        shape=description.shape,
        classes=class_names(dataset, description.classes),
        prepare=datasets.load(dataset).prepare,
    )
