"""Sweeping: what a run of sweep was asked for, and the trainings that follow from it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.artifact import Artifact
from classifier import datasets
from classifier.errors import ArgumentError
from classifier.training import search
from classifier.training.recipe import Recipe
from flows import steps
from flows.names import DEFAULT
from flows.parameters import Overrides, Plan, resolve
from tasks.commands import dataset_option
from tasks.trials import Trial

VALIDATION = "validation_rows"  # the recipe field without which a sweep has no score
ROWS = Recipe().validation_rows  # held back where the recipe holds back none


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is tried, before anything is fetched.

    Fields:
        dataset, recipe, image_size, limit, only_base: as of `train`.
        given: recipe fields that all trials have in common, by name.
        values: of each recipe, the fields that set it apart.
        seeds: of the trainings of each recipe.
        notes: sentences on what was decided without being asked for.
    """

    dataset: str
    recipe: str | None
    given: Mapping[str, Any]
    values: Sequence[Mapping[str, Any]]
    seeds: Sequence[int]
    image_size: str | None
    limit: int | None
    only_base: bool
    notes: Sequence[str]

    @classmethod
    def of(
        cls,
        overrides: Overrides | None,
        choices: Sequence[str],
        draws: int | None,
        seeds: str,
        **train: Any,
    ) -> "Sweep":
        """Return what the texts ask for; `train` are the fields of that name.

        Raises:
            ArgumentError: a text is malformed, or a value is out of its limits.
        """
        given = overrides.model_dump(exclude_none=True) if overrides else {}
        read = search.read_choices(choices)
        _check_names([one.name for one in read], given)
        values, numbers = search.combine(read, draws), search.read_seeds(seeds)
        if len(values) * len(numbers) > search.MOST:
            raise ArgumentError(
                f"{len(values):,} recipes with {len(numbers):,} seeds each are more than "
                f"{search.MOST:,} trials: give fewer seeds or values, or draw some with --random."
            )
        notes = []
        if VALIDATION not in given and not _has_validation(train["dataset"], train["recipe"]):
            given[VALIDATION] = ROWS
            notes.append(
                f"The recipe holds no rows back for validation: the sweep holds back {ROWS:,}, at "
                f"most a fifth. `train` gives the same model with --validation-rows {ROWS}."
            )
        return cls(given=given, values=values, seeds=numbers, notes=notes, **train)

    def overrides(self, values: Mapping[str, Any], precision: str) -> Overrides:
        """Return the recipe fields of these values, with the precision as it was resolved."""
        return Overrides(**{**self.given, **values, "precision": precision})

    def about(self, plans: Sequence[Plan]) -> dict[str, Any]:
        """Return what the report says of the sweep as a whole, JSON-ready."""
        return {
            "dataset": self.dataset,
            "recipe": plans[0].recipe_name,
            "device": plans[0].device,
            "seeds": list(self.seeds),
            "validation_rows": plans[0].recipe.validation_rows,
            "notes": list(self.notes),
        }

    def plans(self, device: str) -> list[Plan]:
        """Return the plan of each recipe, as it is resolved on this machine.

        Raises:
            ArgumentError: as `resolve`.
        """
        return [
            resolve(
                self.dataset,
                self.recipe,
                Overrides(**{**self.given, **values}),
                device,
                limit=self.limit,
                image_size=self.image_size,
            )
            for values in self.values
        ]

    def trials(
        self, plans: Sequence[Plan], rows: Artifact, weights: Artifact | None
    ) -> list[Trial]:
        """Return the trainings, those of one recipe after each other; recipes count once."""
        found: dict[Any, Trial] = {}
        for values, plan in zip(self.values, plans, strict=True):
            initial = weights if plan.initial_weights else None
            for seed in self.seeds:
                asked = steps.train_arguments(plan, seed, rows, None, initial)
                trial = Trial(values=values, seed=seed, recipe=plan.recipe, arguments=asked)
                found.setdefault((plan.recipe, seed), trial)
        return list(found.values())

    def command(self, trial: Trial) -> str:
        """Return the `train` command that gives the model of a trial from the cache.

        It names the precision where `train` would take another one here.
        """
        asked = Overrides(**{**self.given, **trial.values})
        size = self.image_size
        here = resolve(self.dataset, self.recipe, asked, "auto", limit=self.limit, image_size=size)
        precision = trial.recipe.precision
        options = {
            "recipe": None if self.recipe == DEFAULT else self.recipe,
            **self.given,
            **trial.values,
            **({} if here.recipe.precision == precision else {"precision": precision}),
            "seed": trial.seed or None,
            "image_size": self.image_size,
            "limit": self.limit,
        }
        parts = ["./run train" + dataset_option(self.dataset)]
        for name, value in options.items():
            if value is not None:
                parts.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
        return " ".join([*parts, "--only-base"] if self.only_base else parts)


def _check_names(swept: Sequence[str], given: Mapping[str, Any]) -> None:
    """Check that no field is given twice, and that all trials have the same validation rows."""
    for name in swept:
        if name in given:
            raise ArgumentError(
                f"--{name.replace('_', '-')} and --set {name} contradict each other: leave one out."
            )
    if VALIDATION in swept:
        raise ArgumentError(
            "--set validation_rows would score trials on different rows: give --validation-rows "
            "once, for all of them."
        )
    if given.get(VALIDATION) == 0:
        raise ArgumentError(
            "--validation-rows is 0, and a sweep is scored by validation rows: give at least 1, or "
            "leave it out."
        )


def _has_validation(dataset: str, recipe: str | None) -> bool:
    declared = datasets.load(dataset)
    name = datasets.default_recipe_of(declared) if recipe in {None, DEFAULT} else str(recipe)
    return datasets.resolve_recipe(name, declared, {}).validation_rows > 0
