"""Seconds to an accuracy: the post's loop, a textbook loop, scikit-learn, and the recipes here.

Everyone starts from the same arrays in memory; nobody's clock runs while the test images are
scored, and nothing in a training is decided by them.
"""

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median_high
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from benchmarks import data
from benchmarks.training import post_loop
from classifier import devices
from classifier.training import loop, networks
from classifier.training.precision import has_fast_bf16, resolve_precision
from classifier.training.recipe import RECIPES
from classifier.training.rows import InMemoryRows

LEVELS = (0.9364, 0.98, 0.99, 0.994)
PASS_ROWS = 2_000
REPEATS = 3


@dataclass
class Watch:
    """A clock that stands while the test images are scored."""

    images: np.ndarray
    labels: np.ndarray
    curve: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    started: float = 0.0

    def start(self) -> None:
        """Go on."""
        self.started = time.perf_counter()

    def score(self, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Stop, note what share of the test images `predict` gets right, and go on."""
        self.seconds += time.perf_counter() - self.started
        parts = np.array_split(self.images, math.ceil(len(self.images) / PASS_ROWS))
        found = np.concatenate([predict(part) for part in parts])
        self.curve.append((self.seconds, float((found == self.labels).mean())))
        self.start()

    def reached(self, level: float) -> float | None:
        """Seconds after which that accuracy was first seen."""
        return next((seconds for seconds, accuracy in self.curve if accuracy >= level), None)


class Textbook(nn.Module):
    """The network of PyTorch's own MNIST example: 1.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of [N, 1, 28, 28]."""
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.dropout(x, 0.25, self.training).flatten(1)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5, self.training))  # type: ignore[no-any-return]


def textbook(raw: data.Raw, watch: Watch, *, epochs: int) -> None:
    """DataLoader, batches of 64, Adadelta at 1.0 with a decay of 0.7 an epoch."""
    images = torch.from_numpy(data.pixels(raw["train-images"]))[:, None]
    mean, deviation = images.mean(), images.std()
    labels = torch.from_numpy(raw["train-labels"].astype(np.int64))
    pairs = torch.utils.data.TensorDataset((images - mean) / deviation, labels)
    loader = torch.utils.data.DataLoader(pairs, batch_size=64, shuffle=True)
    network = Textbook()
    optimiser = torch.optim.Adadelta(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.7)

    def predict(part: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.inference_mode():
            x = (torch.from_numpy(part)[:, None] - mean) / deviation
            found = network(x).argmax(1).numpy()
        network.train()
        return found  # type: ignore[no-any-return]

    watch.start()
    for _ in range(epochs):
        for number, (x, y) in enumerate(loader, 1):
            optimiser.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
            if number % 100 == 0:
                watch.score(predict)
        schedule.step()
        watch.score(predict)


def scikit_learn(raw: data.Raw, watch: Watch, *, epochs: int) -> None:
    """MLPClassifier with 100 units and its defaults, an epoch at a time."""
    images, labels = data.pixels(raw["train-images"]).reshape(-1, 784), raw["train-labels"]
    model = MLPClassifier((100,), random_state=0)
    watch.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(epochs):
            model.partial_fit(images, labels, classes=range(10))
            watch.score(lambda part: model.predict(part.reshape(len(part), -1)))


def post(raw: data.Raw, watch: Watch, *, epochs: int) -> None:
    """The post's own loop."""

    def after_epoch(parameters: list[Tensor]) -> None:
        w1, b1, w2, b2 = (value.detach().numpy() for value in parameters)
        watch.score(
            lambda part: np.argmax(np.maximum(part.reshape(-1, 784) @ w1 + b1, 0) @ w2 + b2, 1)
        )

    watch.start()
    post_loop(data.pixels(raw["train-images"]), raw["train-labels"], epochs, after_epoch)


def recipe(
    raw: data.Raw,
    watch: Watch,
    *,
    name: str,
    device: str = "cpu",
    progress_interval: float = 0.02,
    seed: int = 0,
    **overrides: Any,
) -> None:
    """One of the recipes here, by the function that the train step calls."""
    chosen = RECIPES[name].override(overrides)
    place = devices.resolve_device(device)
    chosen = chosen.override({"precision": resolve_precision(chosen.precision, device)})
    network = networks.build(chosen.network, (28, 28), 10, {}, seed)
    images, labels = data.pixels(raw["train-images"]), raw["train-labels"]

    def predict(part: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.inference_mode():
            found = network(torch.from_numpy(part).to(place)).argmax(1).cpu().numpy()
        network.train()
        return found  # type: ignore[no-any-return]

    watch.start()
    held = InMemoryRows(*loop.to_device(network, chosen, place)(images, labels))
    loop.fit(
        network,
        held,
        chosen,
        seed=seed,
        device=place,
        on_progress=lambda _: watch.score(predict),
        progress_interval=progress_interval,
    )
    watch.score(predict)


def candidates(*, quick: bool, full: bool) -> dict[str, Callable[[data.Raw, Watch], None]]:
    """Everyone who takes part, by name."""
    found: dict[str, Callable[[data.Raw, Watch], None]] = {
        "the post's loop": partial(post, epochs=5 if quick else 100),
        "scikit-learn `MLPClassifier`": partial(scikit_learn, epochs=1 if quick else 12),
        "`post`": partial(recipe, name="post", epochs=5 if quick else None),
        "`mlp`": partial(recipe, name="mlp", epochs=1 if quick else None),
        "`mlp --epochs 1`": partial(recipe, name="mlp", epochs=1, min_steps=0),
        "`cnn`": partial(recipe, name="cnn"),
    }
    if has_fast_bf16("cpu"):  # elsewhere these take many times as long
        found["`post --precision bf16`"] = partial(
            recipe, name="post", precision="bf16", epochs=5 if quick else None
        )
        found["`cnn --precision bf16`"] = partial(recipe, name="cnn", precision="bf16")
    if full:
        found["textbook loop, 14 epochs"] = partial(textbook, epochs=14)
        found["`best`"] = partial(recipe, name="best", progress_interval=5)
    best_device = devices.present_devices()[0]
    if best_device != "cpu":
        for name in ("post", "mlp", "cnn", "best"):
            found[f"`{name}` on {best_device}"] = partial(recipe, name=name, device=best_device)
    return found


def measure(raw: data.Raw, *, quick: bool, full: bool) -> dict[str, list[Watch]]:
    """Trainings of each in turns, after two short ones that warm the machine up.

    The two that take many minutes run once.
    """
    test = data.pixels(raw["test-images"]), raw["test-labels"]
    post(raw, Watch(*test), epochs=5)
    recipe(raw, Watch(*test), name="cnn")
    watches: dict[str, list[Watch]] = defaultdict(list)
    for turn in range(1 if quick else REPEATS):
        for name, run in candidates(quick=quick, full=full and turn == 0).items():
            watches[name].append(Watch(*test))
            run(raw, watches[name][-1])
    return watches


def table(watches: dict[str, list[Watch]]) -> str:
    """Markdown: medians; a level counts as reached where most trainings reached it."""
    levels = "".join(f" to {100 * level:g} % |" for level in LEVELS)
    lines = [f"| training |{levels} all | final accuracy |", "|---|" + "---:|" * (len(LEVELS) + 2)]
    for name, runs in watches.items():
        times = [median_high(run.reached(level) or math.inf for run in runs) for level in LEVELS]
        times.append(median_high(run.curve[-1][0] for run in runs))
        cells = "".join(f" {f'{t:.2f} s' if t < math.inf else '—'} |" for t in times)
        final = median_high(run.curve[-1][1] for run in runs)
        lines.append(f"| {name} |{cells} {100 * final:.2f} % |")
    return "\n".join(lines)


def plot(watches: dict[str, list[Watch]], path: Path) -> None:
    """Errors over seconds, both logarithmic, one line each: the training of median length."""
    figure = Figure(figsize=(9, 5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, runs in watches.items():
        median = sorted(runs, key=lambda run: run.curve[-1][0])[len(runs) // 2]
        seconds, accuracies = zip(*median.curve, strict=True)
        errors = [max(100 * (1 - accuracy), 0.1) for accuracy in accuracies]
        axes.plot(seconds, errors, label=name.replace("`", ""), linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks(
        [0.5, 1, 2, 6.36, 20, 50], ["99.5 %", "99 %", "98 %", "93.64 %", "80 %", "50 %"]
    )
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.set_ylim(90, None)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("test images right")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100, metadata={"Software": None})
