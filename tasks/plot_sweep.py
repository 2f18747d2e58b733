"""Plot sweep: how its recipes compare on the validation rows."""

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.step import step


@step(kind="pictures")
def plot_sweep(names: list[str], models: list[Artifact], trials: list[int]) -> Artifact:
    """Draw one picture: the validation accuracy of each trial, by recipe.

    Args:
        names: of the recipes, the best first.
        models: of all trials, those of the first recipe first.
        trials: how many of the models each recipe has.
    """
    from classifier.evaluation import figures

    accuracies = iter([one.read_json("history.json")["validation_accuracy"][-1] for one in models])
    by_recipe = [[next(accuracies) for _ in range(number)] for number in trials]
    with draft() as new:
        figures.save(figures.strips(names, by_recipe), new.folder / "recipes.png")
    return new.artifact
