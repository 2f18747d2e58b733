"""The report of a sweep: its recipes in order, and the best one as a command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from artifacts import layout
from artifacts.artifact import Artifact
from artifacts.outcomes import outcomes
from classifier.errors import InputError
from reporting.contents import Contents
from reporting.details import Details
from reporting.report import Run
from tasks.plot_sweep import plot_sweep
from tasks.trials import Result, Score, Trial, label, scores

PICTURE = "recipes"  # name of its file


class NoModelError(InputError):
    """All trials of a sweep failed."""

    def __init__(self, results: Sequence[Result], found: dict[str, Any]) -> None:
        first = f"The first, {results[0].trial.name}: {results[0].why}"
        what = "The only trial" if len(results) == 1 else f"All {len(results)} trials"
        super().__init__(f"{what} failed. {first}")
        self.found = found


def report(
    run: Run,
    about: Mapping[str, Any],
    done: Mapping[str, Artifact],
    results: Sequence[Result],
    command: Callable[[Trial], str],
) -> tuple[dict[str, Any], Result]:
    """Write the report, and return its figures, JSON-ready, and the best trial.

    Args:
        run: the run.
        about: what was asked for.
        done: what the steps before the trials returned, by name.
        results: of the trials.
        command: (trial) -> the command that gives its model.

    Raises:
        NoModelError: no trial succeeded; the report is written all the same.
    """
    ranked = scores(results)
    steps = dict(done)
    steps |= {f"train {one.trial.name}": one.model for one in results if one.model}
    if ranked[0].best:
        steps["plot"] = _plot(ranked)
    ran = outcomes(steps, str(run.flow_run_id))
    computed = {one.step for one in ran if one.outcome == "ran"}
    best = _best(ranked[0], command)
    summary = {
        **about,
        "trials": [_trial(one, computed) for one in results],
        "recipes": [_recipe(one) for one in ranked],
        "best": best,
    }
    pictures = {"The recipes": steps["plot"].path / f"{PICTURE}.png"} if "plot" in steps else {}
    found = run.report(
        Contents(
            summary=summary,
            outcomes=ran,
            pictures=pictures,
            kind="sweep",
            details=Details(on_white=frozenset({PICTURE})),
        )
    )
    if ranked[0].best is None:
        raise NoModelError(results, found)
    return found, ranked[0].best


def _plot(ranked: Sequence[Score]) -> Artifact:
    shown = [one for one in ranked if one.best]
    names = [label(one.values) or "the recipe" for one in shown]
    models = [trial.model for one in shown for trial in one.done if trial.model]
    made: Artifact = plot_sweep(names, models, [len(one.done) for one in shown])
    return made


def _trial(result: Result, computed: set[str]) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": result.trial.name,
        "recipe": asdict(result.trial.recipe),
        "seed": result.trial.seed,
        "validation_accuracy": None,
        "seconds": None,
        "cached": False,
        "model": None,
        "why": result.why,
    }
    if result.model is not None:
        about |= {
            "validation_accuracy": result.accuracy,
            "seconds": round(result.seconds, 3),
            "cached": f"train {result.trial.name}" not in computed,
            "model": layout.relative(layout.cache() / result.model.name),
        }
    return about


def _recipe(score: Score) -> dict[str, Any]:
    return {
        "values": dict(score.values),
        "label": label(score.values) or "the recipe",
        "mean": score.mean if score.best else None,
        "spread": score.spread,
        "seconds": round(median(one.seconds for one in score.done), 3) if score.best else None,
        "trials": len(score.done),
        "failed": score.failed,
    }


def _best(score: Score, command: Callable[[Trial], str]) -> dict[str, Any] | None:
    best = score.best
    if best is None or best.model is None:
        return None
    return {
        "recipe": asdict(best.trial.recipe),
        "values": dict(score.values),
        "mean": score.mean,
        "spread": score.spread,
        "seed": best.trial.seed,
        "validation_accuracy": best.accuracy,
        "model": layout.relative(layout.cache() / best.model.name),
        "command": command(best.trial),
    }
