"""What a person at a terminal sees of a run."""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError, UnusedCliTokensError
from pydantic import ValidationError

from classifier.errors import BadArgument
from tasks import artifacts, progress


class OwnLines(logging.Handler):
    """Shows what this project's code logs; what Prefect says of itself goes to the log file."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record that comes from flows/ or tasks/."""
        if Path(record.pathname).parent in (
            artifacts.PROJECT / "flows",
            artifacts.PROJECT / "tasks",
        ):
            style = "yellow" if record.levelno >= logging.WARNING else None
            progress.console().print(record.getMessage(), style=style, markup=False, soft_wrap=True)


@contextmanager
def lines() -> Iterator[None]:
    """Show our own log lines while the block runs."""
    handler = OwnLines(logging.INFO)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def say(sentence: str) -> None:
    """One line on standard error."""
    progress.console().print(sentence, markup=False, soft_wrap=True)


def summary(result: dict[str, Any], *, ui: bool) -> None:
    """The closing lines; `ui`: whether there is one to look at."""
    from prefect.utilities.urls import url_for

    folder = artifacts.root() / result["report"]
    record = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    shown = {
        "accuracy": f"{result['test_accuracy']:.4f}",
        "errors": f"{result['errors']:,} of {result['test_rows']:,} test images",
    }
    for step in record["timeline"]:
        why = f": {step['why']}" if step["why"] else ""
        shown[step["task"]] = f"{step['outcome']}, {step['seconds']:.2f} s{why}"
    shown |= {"report": str(folder / "report.html"), "pictures": str(folder)}
    if ui:
        shown["UI"] = str(url_for("flow-run", obj_id=record["flow_run_id"]))
    shown["next"] = _next(result)
    sys.stdout.write("\n" + "".join(f"{name:<10} {text}\n" for name, text in shown.items()))


def fitness(found: dict[str, Any], *, ui: bool) -> None:  # noqa: ARG001 - as `summary`
    """The checks, devices and timings of a preflight."""
    from tasks import preflight

    table = preflight.rows(found)
    wide = max(len(row["check"]) for row in table)
    for row in table:
        sys.stdout.write(f"{row['check']:<{wide}}  {row['result']:<6} {row['found']}\n")


def failed(error: Exception, *, debug: bool) -> int:
    """One sentence about what went wrong; the exit code."""
    if debug:
        traceback.print_exception(error)
    bad_argument = isinstance(error, BadArgument | CycloptsError | ValidationError)
    say(f"Error: {_sentence(error)}")
    if not bad_argument:
        for note in getattr(error, "__notes__", []):
            say(f"Log: {note}")
    return 2 if bad_argument else 1


def _sentence(error: Exception) -> str:
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if isinstance(cause, BadArgument):  # from within the parsing
        return str(cause)
    if isinstance(error, UnusedCliTokensError):
        return f"There is no option before {' '.join(error.unused_tokens or ())!r}: name one."
    if not isinstance(cause, ValidationError):
        return str(error) or type(error).__name__
    first = cause.errors()[0]
    argument: Any = getattr(error, "argument", None)
    name = str(first["loc"][-1] if first["loc"] else argument.name)
    option = "--" + name.removeprefix("--").replace("_", "-")
    return f"{option} is {first['input']!r}: {first['msg'].replace('Input should', 'it should')}."


def _next(result: dict[str, Any]) -> str:
    """The command most worth typing now."""
    dataset = "" if result["dataset"] == "mnist" else f" --dataset {result['dataset']}"
    better = {"post": "mlp", "mlp": "cnn"}.get(result["recipe"])
    return f"sh scripts/train{dataset}" + (f" --recipe {better}" if better else " --help")
