"""Flips: the test images on which champion and challenger differ."""

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.parts import open_split
from tasks.plot import Grid
from tasks.step import step


@step(kind="pictures", name="plot-flips")
def plot_flips(
    manifest: Artifact,
    parts: list[Artifact],  # noqa: ARG001 - inputs, which lineage follows
    evaluation: Artifact,
    champion: Artifact,
    grid: Grid,
    classes: tuple[str, ...] | None,
) -> Artifact:
    """Draw official test images that are newly right, and that are newly wrong, where there are.

    Args:
        manifest: which rows there are.
        parts: that hold them.
        evaluation: of the challenger, what `evaluate` returned.
        champion: the same of the champion.
        grid: how many images are drawn.
        classes: their names, by label; None for those in the table.
    """
    import numpy as np

    from classifier.evaluation import figures, metrics

    _, test = open_split(manifest, "test")
    names = classes or test.description.classes
    file = "predictions.parquet"
    labels, now, _ = metrics.read_predictions(evaluation.path / file)
    _, before, _ = metrics.read_predictions(champion.path / file)
    flipped = {
        "newly-right": (before != labels) & (now == labels),
        "newly-wrong": (before == labels) & (now != labels),
    }
    with draft() as new:
        for name, rows in flipped.items():
            shown = np.flatnonzero(rows)[: grid.rows * grid.columns]
            if len(shown):
                images, _ = test.take(shown)
                titles = [
                    f"{names[before[row]]} \N{RIGHTWARDS ARROW} {names[now[row]]}" for row in shown
                ]
                drawn = figures.titled_grid(images, titles, columns=grid.columns)
                figures.save(drawn, new.folder / f"{name}.png")
    return new.artifact
