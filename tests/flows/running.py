"""Running the train flow on the fixture within this process."""

STEPS = ("download", "normalise", "manifest", "train", "evaluate", "plot")


def run(**options):
    """The flow's result: three epochs and small grids, unless the options say otherwise."""
    from flows.parameters import Overrides
    from flows.train import train
    from tasks.plot import Grid

    quick = {"epochs": 3} | options.pop("overrides", {})
    options = {"recipe": "post", "grid": Grid(rows=1, columns=2)} | options
    return train(dataset="folder", overrides=Overrides(**quick), **options)


def ran(result):
    """The steps of a run that were not cached."""
    assert tuple(result["steps"]) == STEPS
    assert set(result["steps"].values()) <= {"ran", "cached"}
    return {name for name, outcome in result["steps"].items() if outcome == "ran"}


def reasons():
    """Why the steps of the last run ran, by step; `None` where there was nothing to say."""
    from artifacts import runs

    _, timeline = runs.timeline_of(None)
    return {step["step"]: step["why"] for step in timeline if step["outcome"] == "ran"}
