"""Plot: what the model saw, what it said, and how it learned."""

from dataclasses import dataclass, field

from classifier.recipe import check
from tasks import artifacts
from tasks.artifacts import Artifact
from tasks.caching import BY_CONTENT, step


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grids of sample images."""

    rows: int = field(default=3, metadata={"description": "Rows of images", "ge": 1, "le": 20})
    columns: int = field(default=5, metadata={"description": "Images a row", "ge": 1, "le": 20})
    seed: int = field(default=0, metadata={"description": "Which images are drawn", "ge": 0})

    def __post_init__(self) -> None:
        check(self, "--grid.")


@step(name="plot", cache_policy=BY_CONTENT)
def plot(table: Artifact, model: Artifact, evaluation: Artifact, grid: Grid) -> Artifact:
    """Five pictures: samples, predictions, mistakes, confusion, curves.

    Args:
        table: what `normalise` gave.
        model: what `train` gave.
        evaluation: what `evaluate` gave.
        grid: size and seed of the grids.
    """
    from classifier import figures, scoring, tables

    classes = tables.describe(table.path).classes
    seen, names = tables.read(table.path, "train", limit=tables.ROW_GROUP)
    images, _ = tables.read(table.path, "test")
    labels, predictions, chances = scoring.read_predictions(evaluation.path / "predictions.parquet")
    metrics = evaluation.read_json("metrics.json")
    size = {"rows": grid.rows, "columns": grid.columns}
    drawn = {
        "samples": figures.sample_grid(seen, names, classes, **size, seed=grid.seed),
        "predictions": figures.prediction_grid(
            images, labels, predictions, classes, **size, seed=grid.seed
        ),
        "mistakes": figures.mistakes(images, labels, predictions, chances, classes, **size),
        "confusion": figures.confusion(metrics["confusion"], classes),
        "curves": figures.curves(model.read_json("history.json")),
    }
    with artifacts.draft("pictures", dataset=table.dataset) as new:
        for name, figure in drawn.items():
            figures.save(figure, new.folder / f"{name}.png")
    return new.finished()
