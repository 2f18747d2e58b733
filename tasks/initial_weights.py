"""Initial weights: what a dataset declares that trainings start from."""

from artifacts import files, inventory, layout
from artifacts.artifact import Artifact, find_damage
from artifacts.step import draft
from classifier import datasets
from classifier.errors import InputError
from reporting import progress
from tasks.download import may_pass
from tasks.step import step

KIND = "weights"


@step(
    kind=KIND,
    name="initial-weights",
    ignored=("dataset",),
    unavailable=(InputError,),
    retries=2,
    retry_delay_seconds=4,
    retry_condition_fn=may_pass,
)
def initial_weights(dataset: str, sha256: str) -> Artifact:
    """Write weights.safetensors, verified.

    Args:
        dataset: its name.
        sha256: of the file that it declares.

    Raises:
        InputError: the file is not there, or is another.
    """
    from classifier.sources import weights

    declared = datasets.load(dataset).initial_weights
    if declared is None or declared.sha256 != sha256:
        raise InputError(f"{dataset} declares other initial weights now: start the run again.")
    if kept := _kept(sha256):
        return kept
    with draft() as new, progress.bar("initial weights", in_bytes=True) as advance:
        weights.fetch(declared, new.folder, root=datasets.PROJECT, progress=advance)
    return new.artifact


def _kept(sha256: str) -> Artifact | None:
    """Return the weights if a champion rests on them, so that they are in the store."""
    from classifier.sources.weights import FILE

    for found in inventory.permanent():
        place = layout.permanent() / found.name
        if found.kind != KIND or find_damage(found, folder=place) is not None:
            continue
        if files.sha256(place / FILE) == sha256:
            return found
    return None
