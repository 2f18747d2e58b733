"""What was ingested, as arguments of `manifest`."""

from dataclasses import dataclass, field

from artifacts.artifact import Artifact, find_damage
from artifacts.errors import InputError
from registry import data
from tasks.commands import data_command
from tasks.errors import BrokenData


@dataclass(frozen=True, kw_only=True)
class NewData:
    """The data that counts now.

    Fields:
        batches: of labelled images, in order.
        patches: corrections, in order.
        erased: digests of rows that must count nowhere.
        has_recent: whether a batch has recent test rows.
    """

    batches: list[Artifact] = field(default_factory=list)
    patches: list[Artifact] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    has_recent: bool = False


def other_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...] | None) -> InputError:
    """Return the error about a batch of images of another size."""
    return InputError(
        f"Batch {name} has images of {found}, and not of {wanted}: give the --image-size of "
        "before, or retract the batch."
    )


def new_data(
    dataset: str,
    *,
    only_base: bool = False,
    broken_too: bool = False,
    shape: tuple[int, ...] | None = None,
) -> NewData:
    """Return the data of the dataset that counts now.

    Args:
        dataset: its name.
        only_base: nothing beside the published rows; erased ones still do not count.
        broken_too: to look at it, and not to train on it.
        shape: that the images must have, where it is known.

    Raises:
        BrokenData: a batch was found broken, and nobody accepted or retracted it.
        InputError: the log or a batch is damaged, or has images of another shape.
    """
    now = data.current(dataset)
    if only_base:
        return NewData(erased=sorted(now.erased))
    for batch in now.live:
        if damage := find_damage(batch.artifact):
            retract = data_command("retract", batch.name, dataset, "--why …")
            raise InputError(
                f"Batch {batch.name} of {dataset} cannot be used ({damage}): ingest its files "
                f"again, restore it from a backup, or type {retract}."
            )
        has = tuple(batch.artifact.read_json("batch.json")["shape"])
        if shape not in {None, has}:
            raise other_shape(batch.name, has, shape)
        if batch.broken and batch.check and not broken_too:
            show = data_command("show", batch.name, dataset)
            accept = data_command("accept", batch.name, dataset, "--why …")
            raise BrokenData(
                f"Batch {batch.name} of {dataset} is broken. {' '.join(batch.check['why'])} "
                f"Look at it with {show}, then retract it, or accept it with {accept}."
            )
    return NewData(
        batches=[batch.artifact for batch in now.live],
        patches=[data.patch(digest) for digest in now.patches],
        erased=sorted(now.erased),
        has_recent=any(batch.about["recent"] for batch in now.live),
    )
