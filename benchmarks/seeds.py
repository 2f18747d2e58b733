"""Test accuracy and seconds of one recipe over many seeds.

    python -m benchmarks.seeds data/seeds.jsonl --seeds 100 --precision bf16 --plot docs/seeds.png

Resumable: each line of the file is a training that is done. The clock runs during training alone.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import accuracy, data
from classifier.training.precision import resolve_precision
from classifier.training.recipe import RECIPES

OF_THE_POST = 0.9364


def main() -> None:
    """Train what is missing, then say and draw how the accuracies lie."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--recipe", default="post", choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--precision", choices=["bf16", "float32"], help="instead of the recipe's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    asked = RECIPES[options.recipe].override({"precision": options.precision})
    precision = resolve_precision(asked.precision, options.device)
    about = {"recipe": options.recipe, "precision": precision, "device": options.device}
    done = {
        entry["seed"]: entry for entry in _entries(options.file) if entry.items() >= about.items()
    }
    with TemporaryDirectory() as folder:
        raw = data.raw(Path(folder))
    for seed in range(options.seeds):
        if seed not in done:
            done[seed] = about | {"seed": seed} | _train(raw, seed=seed, **about)
            with options.file.open("a") as file:
                file.write(json.dumps(done[seed]) + "\n")
    found = np.array([done[seed]["accuracy"] for seed in range(options.seeds)])
    seconds = np.median([done[seed]["seconds"] for seed in range(options.seeds)])
    print(
        f"{options.recipe}, {precision}, {options.device}, {len(found)} seeds: "
        f"mean {found.mean():.4f}, deviation {found.std(ddof=1):.4f}, {found.min():.4f} to "
        f"{found.max():.4f}, median {seconds:.2f} s; {(found < OF_THE_POST).sum()} lie below "
        f"{OF_THE_POST}"
    )
    if options.plot:
        _plot(found, options.plot)


def _entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _train(
    raw: data.Raw, *, recipe: str, precision: str, device: str, seed: int
) -> dict[str, float]:
    watch = accuracy.Watch(data.pixels(raw["test-images"]), raw["test-labels"])
    accuracy.recipe(
        raw,
        watch,
        name=recipe,
        device=device,
        seed=seed,
        precision=precision,
        progress_interval=float("inf"),
    )
    seconds, share = watch.curve[-1]
    return {"accuracy": share, "seconds": seconds}


def _plot(found: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(8, 3.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(found, bins=20, color="tab:blue", alpha=0.7)
    axes.axvline(OF_THE_POST, color="tab:red")
    below = f"the post, {OF_THE_POST}: {(found < OF_THE_POST).sum()} of {len(found)} lie below "
    axes.text(OF_THE_POST, 1.02 * axes.get_ylim()[1], below, color="tab:red", ha="right")
    axes.set_xlabel("test accuracy")
    axes.set_ylabel("seeds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
