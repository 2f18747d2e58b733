"""Plot: what the model saw, what it said, and how it learned."""

from dataclasses import dataclass, field

from artifacts.artifact import Artifact
from artifacts.step import draft
from classifier.training.recipe import check_fields
from tasks.step import step


def _setting(default: int, description: str, **limits: int) -> int:
    """Return a field with its description for the form and the command line."""
    metadata = {"description": description, "help": description, **limits}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grids of sample images."""

    rows: int = _setting(3, "Rows of images", ge=1, le=20)
    columns: int = _setting(5, "Images in a row", ge=1, le=20)
    seed: int = _setting(0, "Seed of the choice of images", ge=0)

    def __post_init__(self) -> None:
        check_fields(self, "--grid.")


@step(kind="pictures")
def plot(table: Artifact, model: Artifact, evaluation: Artifact, grid: Grid) -> Artifact:
    """Draw five pictures: samples, predictions, mistakes, confusion, curves.

    Args:
        table: what `normalise` returned.
        model: what `train` returned.
        evaluation: what `evaluate` returned.
        grid: size and seed of the grids.
    """
    from classifier.data import tables
    from classifier.evaluation import figures, metrics

    classes = tables.describe(table.path).classes
    seen, names = tables.read(table.path, "train", limit=tables.ROW_GROUP)
    images, _ = tables.read(table.path, "test")
    predicted = metrics.read_predictions(evaluation.path / "predictions.parquet")
    labels, predictions, probabilities = predicted
    confusion = evaluation.read_json("metrics.json")["confusion"]
    size = {"rows": grid.rows, "columns": grid.columns}
    drawn = {
        "samples": figures.sample_grid(seen, names, classes, **size, seed=grid.seed),
        "predictions": figures.prediction_grid(
            images, labels, predictions, classes, **size, seed=grid.seed
        ),
        "mistakes": figures.mistakes(images, labels, predictions, probabilities, classes, **size),
        "confusion": figures.confusion(confusion, classes),
        "curves": figures.curves(model.read_json("history.json")),
    }
    with draft() as new:
        for name, figure in drawn.items():
            figures.save(figure, new.folder / f"{name}.png")
    return new.artifact
