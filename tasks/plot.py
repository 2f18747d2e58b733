"""Plot: what the model saw, what it said, and how it learned."""

from dataclasses import dataclass

from artifacts.artifact import Artifact
from artifacts.step import draft
from classifier.training.recipe import check_fields
from tasks.parts import open_split
from tasks.settings import setting
from tasks.step import step

FIRST_ROWS = 10_000  # of which samples are shown: these take no time to find


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grids of sample images."""

    rows: int = setting(3, "Rows of images", ge=1, le=20)
    columns: int = setting(5, "Images in a row", ge=1, le=20)
    seed: int = setting(0, "Seed of the choice of images", ge=0, le=2**32 - 1)

    def __post_init__(self) -> None:
        check_fields(self, "--grid.")


@step(kind="pictures")
def plot(
    manifest: Artifact,
    parts: list[Artifact],  # noqa: ARG001 - inputs, which lineage follows
    model: Artifact,
    evaluation: Artifact,
    grid: Grid,
    classes: tuple[str, ...] | None,
) -> Artifact:
    """Draw five pictures: samples, predictions, mistakes, confusion, curves.

    Args:
        manifest: which rows there are.
        parts: that hold them.
        model: what `train` returned.
        evaluation: of the official test set, what `evaluate` returned.
        grid: size and seed of the grids.
        classes: their names, by label; None for those in the table.
    """
    import numpy as np

    from classifier.evaluation import figures, metrics

    _, train = open_split(manifest, "train")
    _, test = open_split(manifest, "test")
    names = classes or train.description.classes
    predicted = metrics.read_predictions(evaluation.path / "predictions.parquet")
    labels, predictions, probabilities = predicted
    size = {"rows": grid.rows, "columns": grid.columns}
    cells = grid.rows * grid.columns
    first = min(len(train), FIRST_ROWS)
    sampled = figures.draw(first, cells, grid.seed)
    samples, theirs = train.take(sampled)
    named = np.zeros(first, np.uint8)
    named[sampled] = theirs
    drawn = figures.draw(len(labels), cells, grid.seed)
    wrong = figures.surest_mistakes(labels, predictions, probabilities)[:cells]
    shown = np.concatenate([drawn, wrong])
    images = dict(zip(shown.tolist(), test.take(shown)[0], strict=True))
    figure = {
        "samples": figures.sample_grid(
            dict(zip(sampled.tolist(), samples, strict=True)), named, names, **size, seed=grid.seed
        ),
        "predictions": figures.prediction_grid(
            images, labels, predictions, names, **size, seed=grid.seed
        ),
        "mistakes": figures.mistakes(images, labels, predictions, probabilities, names, **size),
        "confusion": figures.confusion(evaluation.read_json("metrics.json")["confusion"], names),
        "curves": figures.curves(model.read_json("history.json")),
    }
    with draft() as new:
        for name, drawing in figure.items():
            figures.save(drawing, new.folder / f"{name}.png")
    return new.artifact
