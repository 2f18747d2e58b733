"""Trainings on Dask workers beside a plain loop: efficiency, and what a trial costs besides.

    python -m benchmarks.sweep [--source FOLDER] [--trials 16] [--limit ROWS] [--rounds 3] [--quick]

All train `cnn` on MNIST with one thread each, and take turns: a plain loop that reads the rows once
and calls `fit`; two such loops at once, which is what the cores themselves can do; and a sweep on
one and on two local Dask workers, with their start and with all that a trial records.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from artifacts import machine

RECIPE, QUICK_ROWS = "cnn", 2_000
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GOAL, OVERHEAD_GOAL = 0.85, 0.3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained: seeds 0 to `trials` - 1 on all rows, or on the first `limit`."""

    trials: int
    limit: int | None


def main() -> None:
    """Print what each way takes, as medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder with the four IDX files")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--limit", type=int, help="train on the first rows alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    trials, limit = (2, QUICK_ROWS) if asked.quick else (asked.trials, asked.limit)
    setting = Setting(trials=trials, limit=limit)
    if asked.way:
        print(json.dumps(_plain(setting) if asked.way == "plain" else _sweep(setting, asked.way)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"RETRAIN_DATA": folder, "PREFECT_HOME": f"{folder}/prefect"}
        if asked.source:
            os.environ["RETRAIN_SOURCE"] = str(asked.source.resolve())
        _measure(setting, 1 if asked.quick else asked.rounds)


def _measure(setting: Setting, rounds: int) -> None:
    _run(Setting(trials=1, limit=setting.limit), "1")  # the rows, and the files of the packages
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(rounds):
        found["plain"].append(_run(setting, "plain"))
        found["two plain"].append(_at_once(setting))
        for workers in ("1", "2"):
            found[workers].append(_run(setting, workers))
    print(
        f"{machine.processor()}, {os.cpu_count()} cores; {setting.trials} x {RECIPE} on "
        f"{setting.limit or 'all'} rows, {rounds=}\n"
    )
    plain = median(one["seconds"] for one in found["plain"])
    bare = plain / setting.trials
    cpu = median(one["cpu"] for one in found["plain"])
    print("| way | seconds | of them start and end | efficiency | processor seconds | goal |")
    print("|---|---:|---:|---:|---:|---:|")
    print(f"| a plain loop | {plain:.1f} | | | {cpu:.1f} | |")
    two = median(one["seconds"] for one in found["two plain"])
    print(f"| two plain loops at once, half of it each | {two:.1f} | | {plain / 2 / two:.2f} | | |")
    for workers in ("1", "2"):
        seconds = median(one["seconds"] for one in found[workers])
        start = median(one["start"] for one in found[workers])
        efficiency = plain / int(workers) / seconds
        name = f"a sweep on {workers} Dask worker{'s' if workers != '1' else ''}"
        cpu = median(one["cpu"] for one in found[workers])
        print(f"| {name} | {seconds:.1f} | {start:.1f} | {efficiency:.2f} | {cpu:.1f} | {GOAL} |")
    overhead = median(one["trial"] for one in found["1"]) - bare
    beside = median(one["beside"] for one in found["1"])
    print(
        f"\nA trial on one worker takes {overhead:.2f} s more than the {bare:.2f} s of the plain "
        f"loop (goal: under {OVERHEAD_GOAL} s), of which the step spends {beside:.2f} s outside of "
        "the training: it reads the rows, writes and records the model."
    )


def _run(setting: Setting, way: str) -> dict[str, Any]:
    return dict(json.loads(_start(setting, way).communicate()[0].splitlines()[-1]))


def _at_once(setting: Setting) -> dict[str, Any]:
    """Return the seconds of the slower of two plain loops that share the trials."""
    half = Setting(trials=setting.trials // 2, limit=setting.limit)
    both = [_start(half, "plain") for _ in range(2)]
    told = [json.loads(one.communicate()[0].splitlines()[-1]) for one in both]
    return {"seconds": max(one["seconds"] for one in told)}


def _start(setting: Setting, way: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.sweep", "--way", way]
    command += ["--trials", str(setting.trials)]
    command += ["--limit", str(setting.limit)] if setting.limit else []
    threads = "2" if way == "2" else "1"  # of all workers together
    environment = os.environ | dict.fromkeys(THREADS, threads)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _plain(setting: Setting) -> dict[str, Any]:
    """Train in a loop, on the rows that a sweep has normalised, read once."""
    import torch

    from classifier.data import parts
    from classifier.training import loop, networks
    from classifier.training.recipe import RECIPES
    from classifier.training.rows import InMemoryRows

    (folder,) = Path(os.environ["RETRAIN_DATA"]).glob("cache/tables/*/")
    images, labels = parts.official(folder, "train").read()
    recipe, cpu = RECIPES[RECIPE], torch.device("cpu")
    started, before = time.perf_counter(), time.process_time()
    for seed in range(setting.trials):
        network = networks.build(recipe.network, images.shape[1:], 10, {}, seed)
        rows = InMemoryRows(*loop.to_device(network, recipe, cpu)(images, labels))
        loop.fit(network, rows, recipe, seed=seed, device=cpu)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu": time.process_time() - before}


def _sweep(setting: Setting, workers: str) -> dict[str, Any]:
    """Train on Dask workers, as the flow does."""
    from flows.cli.app import SETTINGS

    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from prefect import flow

    from artifacts.step import refreshing
    from flows import steps
    from flows.cli import server
    from flows.parameters import resolve
    from tasks.cluster import local
    from tasks.new_data import new_data
    from tasks.train import train

    @flow(name="benchmark")
    def measured() -> dict[str, Any]:
        plan = resolve("mnist", RECIPE, None, "cpu")
        done = steps.published(plan, setting.limit)
        done |= steps.combined(plan, done["normalise"], new_data("mnist", only_base=True))
        asked = [
            steps.train_arguments(plan, seed, done["manifest"], None, None)
            for seed in range(setting.trials)
        ]
        ends, models = [], []
        started = time.perf_counter()
        with refreshing(refresh=True), local(int(workers), "cpu") as cluster:
            ready = time.perf_counter()
            before = sum(cluster.ask(time.process_time).values()) + time.process_time()
            calls = [(train.with_options(task_run_name=f"train {a[4]}"), a) for a in asked]
            for _, model in cluster.run(calls):
                if isinstance(model, Exception):
                    raise model
                ends.append(time.perf_counter())
                models.append(model)
            cpu = sum(cluster.ask(time.process_time).values()) + time.process_time() - before
        told = [one.metadata for one in models]
        each = [later - earlier for earlier, later in itertools.pairwise(ends)]
        return {
            "seconds": time.perf_counter() - started,
            "start": ready - started + time.perf_counter() - ends[-1],
            "cpu": cpu,
            "trial": median(each or [0.0]),
            "beside": median(one["seconds"] - one["train_seconds"] for one in told),
        }

    with server.choose():
        return measured()


if __name__ == "__main__":
    main()
