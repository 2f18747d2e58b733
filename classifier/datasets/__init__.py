"""Datasets: what a subject is. Each file of this folder declares one as `DATASET`.

A new subject is one new file here. Only its name, shape and classes are required; sources,
preparation, networks and recipes of its own are optional. Everything else follows from it.
"""

import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.errors import ArgumentError, InputError
from classifier.sources import Source
from classifier.training.recipe import NETWORKS, RECIPES, Recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import nn

#: (image shape, classes) -> the network, which maps float32 [N, *shape] in 0..1 to logits.
Network = Callable[[tuple[int, ...], int], "nn.Module"]
#: (any picture, image shape) -> uint8 array of that shape.
Prepare = Callable[["Image", tuple[int, ...]], "np.ndarray"]

PROJECT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # also a key in the UI
MIN_CLASSES, MAX_CLASSES = 2, 256  # a label is a byte
MAX_VALUES = 1 << 23  # of one image
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
)


def resize_to_shape(picture: "Image", shape: tuple[int, ...]) -> "np.ndarray":
    """Return the picture in grey or RGB, as the shape asks, resized to it: uint8 [*shape].

    Raises:
        InputError: the shape has another number of channels.
    """
    import numpy as np
    from PIL import Image
    from PIL.Image import Resampling

    height, width, *channels = shape
    if channels not in ([], [1], [3]):
        raise InputError(f"A picture has 1 or 3 channels, not {channels[0]}: give a `prepare`.")
    if picture.mode.startswith("I"):  # 16 bits a pixel: convert() would clip and not scale them
        picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
    mode = "RGB" if channels == [3] else "L"
    resized = picture.convert(mode).resize((width, height), Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A subject: images of one size with one label each.

    Fields:
        name: what `--dataset` calls it: lower-case letters, digits and dashes.
        shape: (H, W) or (H, W, C); None where it is read from the files.
        classes: names of the 2 to 256 classes, by label; None where they are read from the files.
        sources: tried in this order; the first that answers correctly is used.
        digests: SHA-256 of each of FILES, unpacked, where the data is known beforehand.
        fresh_for: how long an answer of a source counts, where no digests are known.
        prepare: brings any picture to the shape.
        default_recipe: the recipe that is used unless another is asked for; None: `cnn` from
            16 x 16, else `mlp`.
        networks, recipes: its own, by name, beside those that every dataset has.
        capturable: those of its networks whose steps may be captured as a CUDA graph: nothing in
            `forward` waits for the device, or depends on values there.
        purpose, licence: what a model of it is for, and the licence of the data, for model cards.

    Raises:
        ArgumentError: a value cannot be used.
    """

    name: str
    shape: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    sources: tuple[Source, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    fresh_for: timedelta = timedelta(days=7)
    prepare: Prepare = resize_to_shape
    default_recipe: str | None = None
    networks: Mapping[str, Network] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    capturable: tuple[str, ...] = ()
    purpose: str = "Gives a picture one of the classes below."
    licence: str = "not stated"

    def __post_init__(self) -> None:
        for wrong in (self._wrong_name(), self._wrong_shape(), self._wrong_classes()):
            if wrong:
                raise ArgumentError(f"Dataset {self.name!r}: {wrong}.")
        for kind, own, common in (
            ("recipe", self.recipes, RECIPES),
            ("network", self.networks, NETWORKS),
        ):
            if taken := sorted(set(own) & set(common)):
                raise ArgumentError(
                    f"Dataset {self.name!r}: every dataset has a {kind} {taken[0]!r} already. "
                    "Choose another name for its own."
                )
        known = (*RECIPES, *self.recipes)
        if self.default_recipe is not None and self.default_recipe not in known:
            raise ArgumentError(
                f"Dataset {self.name!r}: there is no recipe {self.default_recipe!r}; choose its "
                f"default recipe from {', '.join(known)}."
            )

    def _wrong_name(self) -> str | None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            return "a name consists of lower-case letters, digits and single dashes"
        return None

    def _wrong_shape(self) -> str | None:
        if self.shape is None:
            return None
        sides = [side for side in self.shape if type(side) is int and side > 0]
        if len(sides) != len(self.shape) or len(sides) not in {2, 3}:
            return f"an image is (H, W) or (H, W, C), not {self.shape}"
        if math.prod(sides) > MAX_VALUES:
            return f"an image of {self.shape} has more than {MAX_VALUES:,} values"
        return None

    def _wrong_classes(self) -> str | None:
        if self.classes is None:
            return None
        if len(self.classes) not in range(MIN_CLASSES, MAX_CLASSES + 1):
            return f"there are {MIN_CLASSES} to {MAX_CLASSES} classes, not {len(self.classes)}"
        if len(set(self.classes)) != len(self.classes):
            return "two classes have the same name"
        if not all(isinstance(name, str) and name for name in self.classes):
            return "a class name is a text that is not empty"
        return None


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
