"""Drift: how often sound batches alarm, and how often drifted ones do.

    python -m benchmarks.drift --source DIR

Trains `cnn` on the train split less its validation rows. Reference (2,000 rows, as many as a test
uses) and batch are drawn at random, without a common row, from the test split. Prints Markdown
tables; progress goes to standard error.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import binomtest

from benchmarks import clock, data
from classifier.data import idx
from classifier.evaluation import drift, two_sample
from classifier.evaluation.features import features
from classifier.models import Model
from classifier.training import loop, networks
from classifier.training.recipe import RECIPES
from classifier.training.rows import InMemoryRows

CLASSES = 10
CHECKS = 52
FEWEST_PERMUTATIONS = (
    208  # that reach the default alpha: enough for drift, and to clear most batches
)
CPU = torch.device("cpu")
FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "mnist"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    processes: int
    false_alarms: int
    repeats: int
    reference: int
    size: int
    sizes: tuple[int, ...]


FULL = Plan(
    processes=2,
    false_alarms=1_000,
    repeats=100,
    reference=two_sample.MAX_ROWS,
    size=500,
    sizes=(200, 500, 1_000),
)
QUICK = Plan(processes=1, false_alarms=10, repeats=2, reference=400, size=200, sizes=(200,))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One check: which rows, and of which features; `factor` multiplies a class share."""

    kind: str
    size: int
    reference: int
    seed: int
    factor: int = 1


def main() -> None:
    """Train, measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    parser.add_argument("--pool", type=Path, help="keep features here, or take them from here")
    parser.add_argument("--quick", action="store_true", help="on a fixture: to see that it works")
    options = parser.parse_args()
    plan, start = QUICK if options.quick else FULL, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = options.pool or Path(name)
        folder.mkdir(exist_ok=True)
        if not (folder / "labels.npy").exists():
            raw = _little() if options.quick else data.raw(Path(name), "mnist", options.source)
            _write_pool(folder, raw, start)
        draws = [*_sound(plan), *_drifted(plan)]
        found = list(_checked(folder, draws, plan.processes, start))
    sound, drifted = found[: plan.false_alarms], found[plan.false_alarms :]
    print(f"{clock.machine()}, {time.monotonic() - start:.0f} s in all.")
    print(f"{CHECKS} checks and one false alarm a year: alpha {drift.alpha(1, CHECKS):.4f}.\n")
    print(_false_alarm_table(sound, plan))
    print()
    print(_power_table(draws[plan.false_alarms :], drifted, plan))


def _little() -> data.Raw:
    """Return the images of the tests: 200 to train on, and 800 as the pool."""
    little: data.Raw = {}
    for what in ("images-idx3", "labels-idx1"):
        files = [FIXTURE / f"{split}-{what}-ubyte.gz" for split in ("train", "t10k")]
        rows = np.concatenate([idx.read(file) for file in files])
        little |= {f"train-{what[:6]}": rows[:200], f"test-{what[:6]}": rows[200:]}
    return little


def _write_pool(folder: Path, raw: data.Raw, start: float) -> None:
    """Write the features of the test rows under each corruption, and the labels."""
    recipe = RECIPES["cnn"]
    network = networks.build("cnn", (28, 28), CLASSES, {}, 0)
    images, labels = data.pixels(raw["train-images"]), raw["train-labels"]
    rows = InMemoryRows(*loop.to_device(network, recipe, CPU)(images, labels))
    loop.fit(network, rows, recipe, seed=0, device=CPU, progress_interval=float("inf"))
    model = Model(network=network, dataset="mnist", shape=(28, 28), classes=tuple("0123456789"))
    _say("trained", start)
    test = data.pixels(raw["test-images"])
    for kind, corrupt in CORRUPTIONS.items():
        np.save(folder / f"{kind}.npy", features(model, corrupt(test).astype(np.float32), CPU))
    np.save(folder / "labels.npy", raw["test-labels"])  # last: it says that all are there
    _say("features of all corruptions", start)


def _rotated(images: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1))


def _noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return np.clip(images + noise, 0, 1)


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(images, (0, sigma, sigma)))


SOUND = "none"
CORRUPTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    SOUND: lambda images: images,
    **{f"rotated {d} degrees": partial(_rotated, degrees=d) for d in (10, 20, 30)},
    "inverted": lambda images: 1 - images,
    **{f"noise, sigma {s}": partial(_noisy, sigma=s) for s in (0.1, 0.2, 0.3)},
    **{f"blurred, sigma {s} px": partial(_blurred, sigma=s) for s in (0.7, 1.0, 1.5)},
}


def _sound(plan: Plan) -> Iterator[Draw]:
    for seed in range(plan.false_alarms):
        yield Draw(kind=SOUND, size=plan.size, reference=plan.reference, seed=seed)


def _drifted(plan: Plan) -> Iterator[Draw]:
    cases = [(kind, 1) for kind in CORRUPTIONS if kind != SOUND] + [(SOUND, 2), (SOUND, 3)]
    for kind, factor in cases:
        for size in plan.sizes:
            for seed in range(plan.repeats):
                yield Draw(kind=kind, size=size, reference=plan.reference, seed=seed, factor=factor)


def _checked(
    folder: Path, draws: list[Draw], processes: int, start: float
) -> Iterator[drift.Drift]:
    """Yield the verdict of each draw, from processes with one thread each."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for number, found in enumerate(pool.map(partial(_check, folder), draws, chunksize=10), 1):
            yield found
            if number % 200 == 0:
                _say(f"{number:,} of {len(draws):,} checks", start)


def _check(folder: Path, draw: Draw) -> drift.Drift:
    random = np.random.default_rng([draw.seed, draw.size, draw.factor])
    labels = np.load(folder / "labels.npy")
    order = random.permutation(len(labels))
    reference, rest = order[: draw.reference], order[draw.reference :]
    chosen = np.isin(labels[rest], random.integers(CLASSES)) & (draw.factor > 1)
    count = round(draw.factor * draw.size * chosen.mean())  # rows of the class that grows
    grown = rest[chosen][:count]
    batch = np.concatenate([grown, rest[~chosen][: draw.size - len(grown)]])
    check = partial(
        drift.drift,
        np.load(folder / f"{SOUND}.npy", mmap_mode="r")[reference],
        labels[reference],
        np.load(folder / f"{draw.kind}.npy", mmap_mode="r")[batch],
        labels[batch],
        CLASSES,
        seed=draw.seed,
    )
    first = check(permutations=FEWEST_PERMUTATIONS)
    is_sound = draw.kind == SOUND and draw.factor == 1
    return check() if is_sound and not _settled(first) else first


def _settled(first: drift.Drift) -> bool:
    """Return whether all permutations, of which these are the first, can bring no p to alpha."""
    needed = first.alpha * (1 + two_sample.PERMUTATIONS) / (1 + FEWEST_PERMUTATIONS)
    values = (first.p_value, first.label_p_value)
    return all(value is not None and value > needed for value in values)


def _false_alarm_table(found: list[drift.Drift], plan: Plan) -> str:
    level = drift.alpha(1, CHECKS)
    features_p = [check.p_value is not None and check.p_value <= level for check in found]
    features_too = [
        low and (check.auc or 0) >= drift.MIN_AUC
        for low, check in zip(features_p, found, strict=True)
    ]
    shares = [check.label_p_value is not None and check.label_p_value <= level for check in found]
    rows = {
        "features, p alone": features_p,
        f"features, p and AUC >= {drift.MIN_AUC}": features_too,
        "class shares": shares,
        "together": [check.alarm for check in found],
    }
    lines = [
        f"| false alarms, batches of {plan.size} | of {len(found):,} | a year (95 % interval) |",
        "|---|---:|---:|",
    ]
    for name, alarms in rows.items():
        interval = binomtest(sum(alarms), len(alarms)).proportion_ci(0.95)
        year = CHECKS * np.mean(alarms)
        lines.append(
            f"| {name} | {sum(alarms)} | {year:.2f} ({CHECKS * interval.low:.2f} to "
            f"{CHECKS * interval.high:.2f}) |"
        )
    return "\n".join(lines)


def _power_table(draws: list[Draw], found: list[drift.Drift], plan: Plan) -> str:
    cells: dict[tuple[str, int], list[drift.Drift]] = {}
    for draw, check in zip(draws, found, strict=True):
        name = draw.kind if draw.factor == 1 else f"a class at {draw.factor} times its share"
        cells.setdefault((name, draw.size), []).append(check)
    lines = [
        f"| alarms of {plan.repeats} batches (mean AUC) |"
        + "".join(f" {size:,} rows |" for size in plan.sizes),
        "|---|" + "---:|" * len(plan.sizes),
    ]
    for name in dict.fromkeys(name for name, _ in cells):
        columns = (cells[name, size] for size in plan.sizes)
        texts = (
            f" {sum(c.alarm for c in column)} ({np.mean([c.auc or 0 for c in column]):.2f}) |"
            for column in columns
        )
        lines.append(f"| {name} |{''.join(texts)}")
    return "\n".join(lines)


def _say(what: str, start: float) -> None:
    print(f"{time.monotonic() - start:.0f} s: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
