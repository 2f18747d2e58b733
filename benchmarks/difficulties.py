"""Difficulties: how hard each test row is for a recipe, fitted to trainings with ten seeds.

The difficulty of a row is the chance that a model has it wrong. Drawn from a beta distribution, it
makes the number of seeds that have a row wrong beta-binomial.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom, chi2

from benchmarks import clock, data
from classifier.models import Model, predict
from classifier.training import loop, networks
from classifier.training.precision import resolve_precision
from classifier.training.recipe import RECIPES
from classifier.training.rows import InMemoryRows

MEASURED = Path(__file__).parent / "cnn_errors.jsonl"
SEEDS = 10
SURELY_RIGHT = 1e-7  # chances below it add no error: 0.0005 in a year of 10,000 rows, at most
SHIFTS = np.linspace(-6, 6, 241)  # of log-odds, close enough for a loss right to 0.01 rows
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Which test rows the model of each seed has wrong.

    Fields:
        about: recipe, precision and processor, in words.
        rows: of the test set.
        errors: of each seed, int64 [seeds].
        counts: rows that 0, 1, ... of the seeds have wrong, int64 [seeds + 1].
    """

    about: str
    rows: int
    errors: np.ndarray
    counts: np.ndarray

    @property
    def flips(self) -> float:
        """Rows that flip between two seeds, on average over all pairs."""
        seeds = len(self.errors)
        wrong = np.arange(seeds + 1)
        return float(self.counts @ (wrong * (seeds - wrong))) / (seeds * (seeds - 1) / 2)

    @property
    def shape(self) -> tuple[float, float]:
        """Shape of the beta distribution that gives as many errors and as many flips."""
        mean = float(self.errors.mean()) / self.rows
        ratio = self.flips / 2 / self.rows / (mean * (1 - mean))  # E[q (1 - q)] / (m (1 - m))
        total = ratio / (1 - ratio)
        return mean * total, (1 - mean) * total

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Draw the chance of an error for each row; float64 [rows that are ever wrong]."""
        drawn = random.beta(*self.shape, self.rows)
        return np.asarray(drawn[drawn > SURELY_RIGHT])

    def __str__(self) -> str:
        """What was measured, and how well the distribution fits it, as Markdown."""
        seeds = len(self.errors)
        expected = self.rows * betabinom.pmf(np.arange(seeds + 1), seeds, *self.shape)
        statistic = float(((self.counts - expected) ** 2 / expected).sum())
        freedom = seeds - 2  # seeds + 1 counts, less their sum and two parameters
        alone, found = np.sqrt(self.flips / 2), self.errors.std(ddof=1)
        wider = chi2.sf((seeds - 1) * (found / alone) ** 2, seeds - 1)
        table = [
            "| of the seeds are wrong |" + "".join(f" {n} |" for n in range(seeds + 1)),
            "|---|" + "---:|" * (seeds + 1),
            "| rows |" + "".join(f" {count} |" for count in self.counts),
            "| expected |" + "".join(f" {count:.1f} |" for count in expected),
        ]
        return (
            f"{self.about}, {seeds} seeds: {self.errors.mean():.1f} errors in {self.rows:,} rows, "
            f"{self.flips:.1f} flips between two seeds; beta distribution of shape "
            f"{self.shape[0]:.4f}, {self.shape[1]:.4f}.\n\n"
            + "\n".join(table)
            + f"\n\nFit: chi-squared {statistic:.1f} with {freedom} degrees of freedom, "
            f"p {chi2.sf(statistic, freedom):.2f}. Errors of a seed: deviation {found:.1f}, "
            f"{alone:.1f} if all seeds are equally good, p {wider:.2f}."
        )


def of_worse(chances: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return the chances of models that have `losses` more rows wrong, on average.

    A worse model finds every row harder: the log-odds of all rows shift by the same amount.

    Args:
        chances: of an error, float64 [rows].
        losses: in rows, below 0 for a gain, [models].

    Returns:
        float64 [models, rows].
    """

    def at(shifts: np.ndarray) -> np.ndarray:
        factors = np.exp(shifts)[:, None]
        return np.asarray(factors * chances / (1 - chances + factors * chances))

    wanted, model = np.unique(losses, return_inverse=True)
    if not wanted.any():
        return np.broadcast_to(chances, (len(losses), len(chances)))
    errors = at(SHIFTS).sum(axis=1)
    return at(np.interp(chances.sum() + wanted, errors, SHIFTS))[model]


def read(file: Path = MEASURED, seeds: int = SEEDS) -> Measured:
    """Read what `measure` has written."""
    entries = _entries(file) if file.exists() else []
    if len(entries) != seeds:
        raise SystemExit(f"{file} has {len(entries)} of {seeds} seeds: --fit trains the others.")
    rows = entries[0]["rows"]
    wrong = [row for entry in entries for row in entry["wrong"]]
    return Measured(
        about=entries[0]["about"],
        rows=rows,
        errors=np.array([len(entry["wrong"]) for entry in entries]),
        counts=np.bincount(np.bincount(wrong, minlength=rows), minlength=seeds + 1),
    )


def measure(
    file: Path = MEASURED, raw: data.Raw | None = None, *, recipe: str = "cnn", seeds: int = SEEDS
) -> None:
    """Train with each seed, and write which test rows are wrong: a line a seed.

    An interrupted measurement goes on, on the same kind of processor; a whole one starts again.
    """
    if raw is None:
        with TemporaryDirectory() as folder:
            raw = data.raw(Path(folder))
    precision = resolve_precision(RECIPES[recipe].precision, "cpu")
    about = {
        "about": f"`{recipe}`, {precision}, {clock.processor()}",
        "rows": len(raw["test-labels"]),
    }
    done = _entries(file) if file.exists() else []
    if len(done) >= seeds or not all(entry.items() >= about.items() for entry in done):
        done = []
    text = "".join(json.dumps(entry) + "\n" for entry in done)
    for seed in range(len(done), seeds):
        wrong = _wrong_rows(raw, recipe, precision, seed).tolist()
        text += json.dumps(about | {"seed": seed, "wrong": wrong}) + "\n"
        file.write_text(text, encoding="utf-8")


def _entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _wrong_rows(raw: data.Raw, name: str, precision: str, seed: int) -> np.ndarray:
    recipe = RECIPES[name].override({"precision": precision})
    network = networks.build(recipe.network, (28, 28), 10, {}, seed)
    images, labels = data.pixels(raw["train-images"]), raw["train-labels"]
    rows = InMemoryRows(*loop.to_device(network, recipe, CPU)(images, labels))
    loop.fit(network, rows, recipe, seed=seed, device=CPU, progress_interval=float("inf"))
    model = Model(network=network, dataset="mnist", shape=(28, 28), classes=tuple("0123456789"))
    found = predict(model, data.pixels(raw["test-images"]), CPU).argmax(1)
    return np.flatnonzero(found != raw["test-labels"])
