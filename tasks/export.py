"""Export: a model as one file that runs without this project's code."""

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.step import DATASET, step


@step(kind="exports", code=DATASET)
def export(model: Artifact, dataset: str) -> Artifact:  # noqa: ARG001 - its file counts in the key
    """Write the export, and try it.

    Args:
        model: what `train` returned.
        dataset: its name; the networks that its file brings count in the key.

    Raises:
        InputError: the network cannot be exported.
    """
    from classifier import exports, models

    with draft() as new:
        exports.write(new.folder, models.load(model.path))
    return new.artifact
