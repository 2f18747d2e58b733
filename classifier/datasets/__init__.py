"""Datasets: what a subject is. Each file of this folder declares one as `DATASET`.

A new subject is one new file here. Only its name, shape and classes are required; sources,
preparation, networks and recipes of its own are optional. Everything else follows from it.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from classifier.declaration import Dataset, resize_to_shape
from classifier.errors import ArgumentError, InputError
from classifier.training.recipe import NETWORKS, RECIPES, Recipe

__all__ = ["Dataset", "resize_to_shape"]

PROJECT = Path(__file__).resolve().parents[2]
MIN_CNN_SIDE = 16  # pixels, for the default recipe `cnn`

#: Arguments of Dataset that change no number, or that count by their values elsewhere.
DESCRIPTIVE = (
    "sources",
    "fresh_for",
    "recipes",
    "default_recipe",
    "classes",
    "purpose",
    "licence",
    "initial_weights",
    "metric",
    "max_parameters",
    "max_latency_ratio",
)


def check_classes(dataset: str, before: Sequence[str], now: Sequence[str]) -> None:
    """Check that rows labelled under the names `before` can be read under the names `now`.

    Names may be changed and appended: a label keeps its number.

    Raises:
        InputError: a class was removed, or the order changed.
    """
    if len(now) < len(before):
        gone = [name for name in before if name not in now] or list(before[len(now) :])
        wrong = f"class {gone[0]!r} was removed"
    elif moved := [
        a for a, b in zip(before, now, strict=False) if a != b and (a in now or b in before)
    ]:
        wrong = f"the order of its classes changed at {moved[0]!r}"
    else:
        return
    raise InputError(
        f"{dataset}: {wrong}, so older rows would get other labels. Declare the classes as "
        f"{', '.join(before)}, with new ones at the end, or give the dataset a new name."
    )


def declared() -> dict[str, tuple[Dataset, Path]]:
    """Return every dataset by name, with the file that declares it; `problems` are left out."""
    return _declared()[0]


def problems() -> list[str]:
    """Return a sentence for each file that cannot be used, so that the others still work."""
    return _declared()[1]


@cache
def _declared() -> tuple[dict[str, tuple[Dataset, Path]], list[str]]:
    found: dict[str, tuple[Dataset, Path]] = {}
    wrong: list[str] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        try:
            dataset, path = _read(module)
            _check_against(found, dataset, path)
        except InputError as error:
            wrong.append(str(error))
        else:
            found[dataset.name] = (dataset, path)
    return found, wrong


def _read(module: str) -> tuple[Dataset, Path]:
    """Import a file of this folder and return what it declares.

    Raises:
        InputError: it cannot be imported, or declares no dataset.
    """
    path = Path(__file__).with_name(f"{module}.py")
    if not path.resolve().is_relative_to(PROJECT):
        raise InputError(f"{path} leads out of the project, where a change would go unnoticed.")
    if not path.is_file():
        raise InputError(f"{path.with_suffix('')} is a folder: a dataset is one file.")
    try:
        dataset = getattr(importlib.import_module(f"{__name__}.{module}"), "DATASET", None)
    except (Exception, SystemExit) as error:  # someone else's code: the others still work
        raise InputError(f"{path} cannot be used ({type(error).__name__}: {error}).") from error
    if not isinstance(dataset, Dataset):
        raise InputError(f"{path} declares no dataset: it needs a line DATASET = Dataset(...).")
    return dataset, path


def _check_against(found: Mapping[str, tuple[Dataset, Path]], dataset: Dataset, path: Path) -> None:
    for other, at in found.values():
        if other.name == dataset.name:
            raise InputError(f"{path} and {at} both declare {dataset.name!r}.")
        for name in set(other.recipes) & set(dataset.recipes):
            if other.recipes[name] != dataset.recipes[name]:
                raise InputError(f"{path} and {at} both declare a recipe {name!r}.")


def load(name: str) -> Dataset:
    """Return the dataset of that name.

    Raises:
        ArgumentError: there is none; the sentence lists those that there are.
        InputError: its file cannot be used.
    """
    if name in declared():
        return declared()[name][0]
    module = name.replace("-", "_")
    if module.isidentifier() and Path(__file__).with_name(f"{module}.py").is_file():
        _check_against(declared(), *_read(module))
    raise ArgumentError(
        f"There is no dataset {name!r}: choose one of {', '.join(declared())}, "
        "or add a file to classifier/datasets/."
    )


def recipes() -> dict[str, Recipe]:
    """Return every recipe by name: those for all datasets, then the datasets' own."""
    own = (dataset.recipes for dataset, _ in declared().values())
    return RECIPES | {name: recipe for mapping in own for name, recipe in mapping.items()}


def default_recipe_of(dataset: Dataset) -> str:
    """Return the name of the recipe that the dataset uses unless another is asked for."""
    if dataset.default_recipe is not None:
        return dataset.default_recipe
    large = dataset.shape is not None and min(dataset.shape[:2]) >= MIN_CNN_SIDE
    return "cnn" if large else "mlp"


def resolve_recipe(name: str | None, dataset: Dataset, overrides: Mapping[str, Any]) -> Recipe:
    """Return the recipe of that name, or the dataset's default, with some fields replaced.

    Args:
        name: of the recipe.
        dataset: that will be trained on.
        overrides: values by field; None replaces nothing.

    Raises:
        ArgumentError: there is no such recipe, a value is out of its limits, or this dataset has no
            such network.
    """
    name = name or default_recipe_of(dataset)
    if name not in recipes():
        raise ArgumentError(f"There is no recipe {name!r}: choose one of {', '.join(recipes())}.")
    recipe = recipes()[name].override(overrides)
    known = (*NETWORKS, *dataset.networks)
    if recipe.network not in known:
        raise ArgumentError(
            f"There is no network {recipe.network!r} for {dataset.name}: choose one of "
            f"{', '.join(known)}."
        )
    return recipe
