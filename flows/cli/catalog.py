"""The commands that list what there is: ./run recipes, ./run datasets."""

from dataclasses import asdict, fields
from typing import Any

from classifier import datasets as declared
from classifier.sources import name_of
from classifier.training.recipe import RECIPES, Recipe
from flows.cli.answer import Answer


def recipes() -> Answer:
    """List the recipes with their values."""
    there = declared.recipes()
    found = [{"recipe": name, **asdict(recipe)} for name, recipe in there.items()]
    lines = []
    for name, recipe in there.items():
        of_all = name in RECIPES
        lines.append(name if of_all else f"{name}  (of one dataset)")
        lines += [f"  {line}" for line in _changed(recipe)]
    lines.append("")
    lines.append("Shown is what differs from the defaults; each field is an option of ./run train.")
    return Answer(found, "\n".join(lines))


def _changed(recipe: Recipe) -> list[str]:
    """Return the fields that differ from their defaults."""
    wide = max(len(item.name) for item in fields(Recipe))
    return [
        f"{item.name.replace('_', '-'):<{wide}}  {getattr(recipe, item.name)}"
        for item in fields(Recipe)
        if getattr(recipe, item.name) != item.default or item.name == "network"
    ]


def datasets() -> Answer:
    """List the datasets with what they declare."""
    there = [dataset for dataset, _ in declared.declared().values()]
    found = [
        {
            "dataset": dataset.name,
            "shape": dataset.shape,
            "classes": dataset.classes,
            "default_recipe": declared.default_recipe_of(dataset),
            "recipes": list(dataset.recipes),
            "networks": list(dataset.networks),
            "sources": [name_of(source) for source in dataset.sources],
        }
        for dataset in there
    ]
    lines = [line for row in found for line in _lines(row)]
    return Answer(found, "\n".join(lines), warnings=tuple(declared.problems()))


def _lines(row: dict[str, Any]) -> list[str]:
    shape = " x ".join(map(str, row["shape"])) if row["shape"] else "read from the files"
    classes = ", ".join(row["classes"]) if row["classes"] else "read from the files"
    named = {
        "shape": shape,
        "classes": classes,
        "default recipe": row["default_recipe"],
        "own recipes": ", ".join(row["recipes"]),
        "own networks": ", ".join(row["networks"]),
        "sources": ", ".join(row["sources"]) or "--source DIR",
    }
    return [row["dataset"], *(f"  {name:<15} {text}" for name, text in named.items() if text)]
