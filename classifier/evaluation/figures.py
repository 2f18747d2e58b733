"""Figures: what the data looks like, what the model said of it, and how it learned.

Images are float32 [H, W] or [H, W, C] in 0..1, by the number of their row: an array, or a mapping
that holds those which are shown. Only Matplotlib's objects are used, never
pyplot: no global state, no window, and the same bytes for the same figure.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

Images = Mapping[int, NDArray[np.float32]] | NDArray[np.float32]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

DPI = 100
CELL = 2.0  # inches an image
INK, FAINT = "#1b1f24", "#8c959f"  # on white
# Titles of images, which have no background: at least 4:1 both on white and on a dark page.
TITLE, RIGHT, WRONG = "#757b82", "#1f8a3d", "#e0383f"
SHORT = 3  # letters of a name that need no slanting
MOST_MEANS = 20  # classes whose mean images are shown
MEANS_IN_A_ROW = 5  # as many as can be seen on a phone
MOST_RECIPES, LONGEST_NAME = 20, 60  # of a sweep that are shown; letters of their names
RECIPE_HEIGHT = 0.34  # inches
MOST_COUNTED = 20  # classes; with more, the counts of a confusion matrix cannot be read


def draw(available: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return which rows a grid of `wanted` images shows."""
    random = np.random.default_rng(seed)
    return random.choice(available, size=min(wanted, available), replace=False)


def surest_mistakes(labels: Bytes, predictions: Bytes, probabilities: Floats) -> NDArray[np.int64]:
    """Return the rows with wrong predictions, those first that the model was surest of."""
    wrong = np.flatnonzero(labels != predictions)
    confidence = probabilities[wrong, predictions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")]


def sample_grid(
    images: Images,
    labels: Bytes,
    classes: Sequence[str],
    *,
    rows: int = 3,
    columns: int = 5,
    seed: int = 0,
) -> Figure:
    """Random images, each titled with its class."""
    figure, cells = _grid(rows, columns)
    for axes, index in zip(cells, draw(len(labels), rows * columns, seed), strict=False):
        _show(axes, images[index], classes[labels[index]])
    return figure


def prediction_grid(
    images: Images,
    labels: Bytes,
    predictions: Bytes,
    classes: Sequence[str],
    *,
    rows: int = 3,
    columns: int = 5,
    seed: int = 0,
) -> Figure:
    """Random images titled `true/predicted`: green where right, bold red where wrong."""
    figure, cells = _grid(rows, columns)
    for axes, index in zip(cells, draw(len(labels), rows * columns, seed), strict=False):
        right = labels[index] == predictions[index]
        title = f"{classes[labels[index]]}/{classes[predictions[index]]}"
        _show(axes, images[index], title, color=RIGHT if right else WRONG, bold=not right)
    return figure


def mistakes(
    images: Images,
    labels: Bytes,
    predictions: Bytes,
    probabilities: Floats,
    classes: Sequence[str],
    *,
    rows: int = 3,
    columns: int = 5,
) -> Figure:
    """The wrong predictions that the model was surest of, the surest first."""
    figure, cells = _grid(rows, columns)
    order = surest_mistakes(labels, predictions, probabilities)[: rows * columns]
    for axes, index in zip(cells, order, strict=False):
        title = f"{classes[labels[index]]}/{classes[predictions[index]]}"
        title += f" {math.floor(100 * probabilities[index, predictions[index]])} %"
        _show(axes, images[index], title, color=WRONG, bold=True)
    if not len(order):
        figure.text(0.5, 0.5, "No mistakes", ha="center", va="center", size=18, color=TITLE)
    return figure


def titled_grid(
    images: Sequence[Floats] | Floats, titles: Sequence[str], *, columns: int = 5
) -> Figure:
    """Images [N, ...], each under its title."""
    figure, cells = _grid(max(1, math.ceil(len(titles) / columns)), columns)
    for axes, image, title in zip(cells, images, titles, strict=False):
        _show(axes, image, title)
    return figure


def class_means(batch: Floats, usual: Floats, classes: Sequence[str]) -> Figure:
    """The mean image of each class, [K, ...]: of a batch, and of the published rows below it."""
    shown = min(len(classes), MOST_MEANS)
    starts, columns = range(0, shown, MEANS_IN_A_ROW), min(shown, MEANS_IN_A_ROW)
    figure, cells = _grid(2 * len(starts), columns)
    for start in starts:
        for images, whose in ((batch, "batch"), (usual, "usual")):
            for label, axes in zip(range(start, start + columns), cells, strict=False):
                if label < min(shown, len(images)):  # the published rows may know fewer classes
                    _show(axes, images[label], f"{classes[label]}, {whose}")
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Counts by true class (rows) and predicted class (columns); the colour is a row's share."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(max(6.0, min(12.0, 2 + 0.7 * len(classes))))
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    step = math.ceil(len(classes) / 32)
    ticks = range(0, len(classes), step)
    names = [_one_line(classes[tick]) for tick in ticks]
    level = max(map(len, names)) <= SHORT
    slanted: dict[str, Any] = (
        {} if level else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    )
    axes.set_xticks(ticks, names, parse_math=False, **slanted)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    if len(classes) <= MOST_COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.5 else INK if count else FAINT  # noqa: PLR2004
            axes.text(column, row, f"{count}", ha="center", va="center", color=color, size=9)
    return figure


def curves(history: Mapping[str, Sequence[float] | None]) -> Figure:
    """Loss and accuracies over the epochs, each line labelled with its last value."""
    figure = _figure(10.0, 4.0)
    left, right = figure.subplots(1, 2)
    _curve(left, history["loss"] or (), "train", "tab:blue")
    _curve(right, history["train_accuracy"] or (), "train", "tab:blue")
    _curve(right, history.get("validation_accuracy") or (), "validation", "tab:orange")
    for axes, name in ((left, "loss"), (right, "accuracy")):
        axes.set_xlabel("epoch")
        axes.set_title(name, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(bottom=0)
    return figure


def strips(names: Sequence[str], accuracies: Sequence[Sequence[float]]) -> Figure:
    """One line a recipe: a dot for each of its accuracies, and a bar at their mean.

    Args:
        names: of the recipes, the best first.
        accuracies: of the trials of each, in 0..1.
    """
    shown = list(zip(names, accuracies, strict=True))[:MOST_RECIPES]
    figure = _figure(8.0, 1.1 + RECIPE_HEIGHT * len(shown))
    axes = figure.add_subplot()
    for row, (_, values) in enumerate(shown):
        color = "tab:blue" if row == 0 else FAINT
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.6, markeredgewidth=0)
        mean = fmean(values)
        axes.plot([mean, mean], [row - 0.32, row + 0.32], color=color, linewidth=2.5)
        axes.annotate(
            f"{100 * mean:.2f} %",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            weight="bold" if row == 0 else "normal",
        )
    texts = [_one_line(name)[:LONGEST_NAME] for name, _ in shown]
    axes.set_yticks(range(len(shown)), texts, parse_math=False, color=INK)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel("validation accuracy; bar and number: the mean")
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    return figure


def note(text: str) -> Figure:
    """Return a picture of a few words."""
    figure = _figure(4.0, 2.0)
    figure.text(0.5, 0.5, _one_line(text), ha="center", va="center", size=18, color=FAINT)
    return figure


def save(figure: Figure, file: Path | BinaryIO) -> None:
    """Write a PNG that says nothing of when or by what it was made."""
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})


def _figure(width: float, height: float | None = None) -> Figure:
    figure = Figure(figsize=(width, height or width), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _grid(rows: int, columns: int) -> tuple[Figure, Iterator[Axes]]:
    """A figure of rows x columns empty cells on no background, and these in reading order."""
    figure = _figure(CELL * columns, CELL * rows * 1.15)
    figure.patch.set_alpha(0)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    return figure, iter(cells)


def _show(axes: Axes, image: Floats, title: str, *, color: str = TITLE, bold: bool = False) -> None:
    # In colour if there are three channels; else the first, in grey.
    picture = image[..., 0] if image.ndim == 3 and image.shape[-1] != 3 else image  # noqa: PLR2004
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    title = _one_line(title)
    # About 0.65 of its size is the mean width of a letter: long titles shrink to fit their cell.
    size = min(16.0, CELL * 72 / (0.65 * max(1, len(title))))
    weight = "bold" if bold else "normal"
    axes.set_title(title, color=color, size=size, weight=weight, parse_math=False)


def _one_line(text: str) -> str:
    """Return the text as a font can draw it: on one line, without control characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def _curve(axes: Axes, values: Sequence[float], name: str, color: str) -> None:
    if values:
        epochs = range(1, len(values) + 1)
        marker = "o" if len(values) == 1 else ""
        label = f"{name} {values[-1]:.4f}"
        axes.plot(epochs, values, color=color, marker=marker, label=label)
