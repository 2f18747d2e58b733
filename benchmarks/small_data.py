"""Test accuracy on small data: the recipes with their least number of steps, and without it.

    python -m benchmarks.small_data --dataset fashion-mnist --source DIR

Trains on the first rows of the train split, the validation rows among them, and scores the whole
test split. The clock runs during training alone.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, median

from benchmarks import accuracy, clock, data
from classifier.training.loop import planned_epochs
from classifier.training.recipe import RECIPES

ROWS = (1_000, 3_000, 10_000, 60_000)
RECIPES_MEASURED = ("mlp", "cnn")


def main() -> None:
    """Train, and print one table row for each number of rows and recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = data.raw(Path(folder), options.dataset, options.source)
    print(f"{options.dataset}, {options.seeds} seeds. {clock.machine()}\n")
    print("| rows | recipe | epochs alone | seconds | with `min_steps` | epochs | seconds |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for rows in ROWS:
        for name in RECIPES_MEASURED:
            alone = _train(raw, rows, name, seeds=options.seeds, min_steps=0)
            epochs = planned_epochs(RECIPES[name], rows)
            with_least = alone
            if epochs != RECIPES[name].epochs:
                with_least = _train(raw, rows, name, seeds=options.seeds)
            cells = [
                f"{100 * share:.2f} % | {seconds:.1f}" for share, seconds in (alone, with_least)
            ]
            print(
                f"| {rows:,} | `{name}` | {cells[0]} | {cells[1].replace(' |', f' | {epochs} |')} |"
            )


def _train(
    raw: data.Raw, rows: int, name: str, *, seeds: int, min_steps: int | None = None
) -> tuple[float, float]:
    """Return mean test accuracy and median seconds over the seeds."""
    first = raw | {file: raw[file][:rows] for file in ("train-images", "train-labels")}
    watches = []
    for seed in range(seeds):
        watch = accuracy.Watch(data.pixels(raw["test-images"]), raw["test-labels"])
        accuracy.recipe(
            first, watch, name=name, seed=seed, progress_interval=float("inf"), min_steps=min_steps
        )
        watches.append(watch.curve[-1])
    return mean(share for _, share in watches), median(seconds for seconds, _ in watches)


if __name__ == "__main__":
    main()
