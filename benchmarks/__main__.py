"""Print the tables of docs/results.md: ./run bench [--quick] [--only NAME]."""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import accuracy, clock, data

NAMES = ("training", "parquet", "memory", "cached_flow", "cache", "accuracy")


def measured(name: str, folder: Path, *, quick: bool) -> Iterator[clock.Row]:
    """The rows of one benchmark."""
    from benchmarks import cache, cached_flow, parquet, training

    if name == "training":
        yield from training.rows(data.raw(folder), quick=quick)
    elif name == "parquet":
        yield from parquet.rows(data.raw(folder), quick=quick)
    elif name == "memory":
        yield from parquet.memory_rows(data.raw(folder), quick=quick)
    else:
        data.raw(folder)
        os.environ["RETRAIN_SOURCE"] = str(folder)
        of_flows = {"cached_flow": cached_flow.rows, "cache": cache.rows}
        yield from of_flows[name](folder, quick=quick)


def main() -> None:
    """Measure, and print a Markdown table; the same as JSON beside it with --json."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats: to see that it works")
    parser.add_argument("--only", choices=NAMES, action="append", help="this benchmark")
    parser.add_argument(
        "--full", action="store_true", help="also what takes minutes: `best` and the textbook loop"
    )
    parser.add_argument("--plot", type=Path, help="draw accuracy over seconds into this PNG")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    print(f"{clock.machine()}\n")
    print("| what | ours | peer | ours / peer | goal | the clock includes |")
    print("|---|---:|---:|---:|---|---|")
    wanted = options.only or NAMES
    found: dict[str, Any] = {"rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "raw"
        folder.mkdir()
        for benchmark in wanted:
            if benchmark != "accuracy":
                for row in measured(benchmark, folder, quick=options.quick):
                    found["rows"].append(row.json())
                    print(row, flush=True)
        if "accuracy" in wanted:
            watches = accuracy.measure(data.raw(folder), quick=options.quick, full=options.full)
            print(f"\n{accuracy.table(watches)}")
            found["curves"] = {who: [run.curve for run in runs] for who, runs in watches.items()}
            if options.plot:
                accuracy.plot(watches, options.plot)
    print(f"\n{clock.machine()}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
