"""Test accuracy of the `post` recipe over many seeds, and the place of the post's 0.9364 in it.

    python -m benchmarks.seeds data/seeds.jsonl --seeds 100 --plot docs/seeds.png

Resumable: each line of the file is a seed that is done. In bf16, which is half as long.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import accuracy, data

OF_THE_POST = 0.9364


def main() -> None:
    """Train what is missing, then say and draw how the accuracies lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "float32"])
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    lines = options.file.read_text().splitlines() if options.file.exists() else []
    done = {}
    for line in lines:
        entry = json.loads(line)
        if entry["precision"] == options.precision:
            done[entry["seed"]] = entry["accuracy"]
    with TemporaryDirectory() as folder:
        raw = data.raw(Path(folder))
    for seed in range(options.seeds):
        if seed not in done:
            done[seed] = _accuracy(raw, seed, options.precision)
            entry = {"precision": options.precision, "seed": seed, "accuracy": done[seed]}
            with options.file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
    found = np.array([done[seed] for seed in range(options.seeds)])
    share = (found < OF_THE_POST).mean()
    print(
        f"{len(found)} seeds: mean {found.mean():.4f}, deviation {found.std(ddof=1):.4f}, "
        f"{found.min():.4f} to {found.max():.4f}; {100 * share:.0f} % lie below {OF_THE_POST}"
    )
    if options.plot:
        _plot(found, options.plot)


def _accuracy(raw: data.Raw, seed: int, precision: str) -> float:
    watch = accuracy.Watch(data.pixels(raw["test-images"]), raw["test-labels"])
    accuracy.recipe(
        raw, watch, name="post", seed=seed, precision=precision, look_seconds=float("inf")
    )
    return watch.curve[-1][1]


def _plot(found: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(8, 3.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(found, bins=20, color="tab:blue", alpha=0.7)
    axes.axvline(OF_THE_POST, color="tab:red")
    axes.text(OF_THE_POST, axes.get_ylim()[1], " the post", color="tab:red", va="top")
    axes.set_xlabel("test accuracy")
    axes.set_ylabel("seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
