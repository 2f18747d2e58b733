"""What a person at a terminal sees of a run."""

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError, UnusedCliTokensError
from pydantic import ValidationError

from artifacts import layout
from artifacts.text import counted, printable
from classifier import datasets
from flows.cli.answer import short
from reporting.progress import console
from tasks.commands import data_command, dataset_option
from tasks.errors import ARGUMENT_ERRORS

SHOWN_RECIPES = 20  # of a sweep
SHOWN_REFUSED = 5  # rows that the terminal names; the report has the others
_PROJECT = Path(__file__).resolve().parents[2]
_PACKAGES = ("flows", "tasks", "registry", "reporting", "artifacts", "classifier")


class ProjectLogHandler(logging.Handler):
    """Shows what the project's code logs; what Prefect says of itself goes to the log file."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record that comes from one of the project's packages."""
        path = Path(record.pathname)
        if path.is_relative_to(_PROJECT) and path.relative_to(_PROJECT).parts[0] in _PACKAGES:
            style = "yellow" if record.levelno >= logging.WARNING else None
            text = printable(record.getMessage())
            console().print(text, style=style, markup=False, soft_wrap=True)


def say(sentence: str) -> None:
    """Print one line on standard error."""
    console().print(printable(sentence), markup=False, soft_wrap=True)


def print_summary(result: dict[str, Any], *, ui: bool) -> None:
    """Print the closing lines of a train flow; `ui`: whether there is one to look at."""
    _write([*_scores(result), *_report(result, ui=ui), ("next", _next(result))])


def print_sweep(result: dict[str, Any], *, ui: bool) -> None:
    """Print the recipes of a sweep, the best first; `ui`: whether there is one to look at."""
    wide = max(len("recipe"), *(len(printable(one["label"])) for one in result["recipes"]))
    rows = [f"{'recipe':<{wide}}    mean  spread  seconds  trials"]
    for one in result["recipes"][:SHOWN_RECIPES]:
        mean = "      -" if one["mean"] is None else f"{100 * one['mean']:6.2f}%"
        spread = "     -" if one["spread"] is None else f"{100 * one['spread']:5.2f}%"
        seconds = "      -" if one["seconds"] is None else f"{one['seconds']:7.1f}"
        failed = f", {one['failed']} failed" if one["failed"] else ""
        text = f"{printable(one['label']):<{wide}} {mean}  {spread}  {seconds}  {one['trials']:>6}"
        rows.append(text + failed)
    if more := len(result["recipes"]) - SHOWN_RECIPES:
        rows += [f"{more} more are in the report"] if more > 0 else []
    sys.stdout.write("\n" + "\n".join(rows) + "\n")
    failures = [one for one in result["trials"] if one["why"]]
    lines = [("failed", f"{one['name']}: {one['why']}") for one in failures[:SHOWN_REFUSED]]
    if best := result["best"]:
        lines.append(("best", best["command"]))
    if challenge := result.get("challenge"):
        lines.append(("challenge", challenge["outcome"]))
        lines += [("", sentence) for sentence in challenge.get("why", ())]
    _write([*lines, *_report(result, ui=ui)])


def print_retrain(result: dict[str, Any], *, ui: bool) -> None:
    """Print the closing lines of a retrain flow; `ui`: whether there is one to look at."""
    lines = [("outcome", result["outcome"])]
    lines += [("", sentence) for sentence in result.get("why", ())]
    if "test_accuracy" in result:
        lines += _scores(result)
        lines.append(("champion", short(result["champion"] or "none")))
    _write([*lines, *_report(result, ui=ui)])


def _scores(result: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("accuracy", f"{result['test_accuracy']:.4f}"),
        ("errors", f"{result['errors']:,} of {result['test_rows']:,} test images"),
    ]
    if result.get("metric") == "macro-recall":
        lines.insert(0, ("recall", f"{result['macro_recall']:.4f}, the mean over the classes"))
    if "recent_accuracy" in result:
        accuracy, rows = result["recent_accuracy"], result["recent_rows"]
        lines.append(("recent", f"{accuracy:.4f} of {rows:,} recent test images"))
    return lines


def _report(result: dict[str, Any], *, ui: bool) -> list[tuple[str, str]]:
    from prefect.utilities.urls import url_for

    report = layout.root() / result["report"] / "report.html"
    lines = [("report", str(report))]
    if ui:
        lines.append(("UI", str(url_for("flow-run", obj_id=_flow_run_id(report)))))
    return lines


def _write(lines: list[tuple[str, str]]) -> None:
    text = "".join(f"{name:<10} {printable(value)}\n" for name, value in lines)
    sys.stdout.write("\n" + text)


def print_ingest(result: dict[str, Any], *, ui: bool) -> None:
    """Print the closing lines of an ingest; `ui`: whether there is one to look at."""
    lines: list[tuple[str, str]] = []
    for batch in result["batches"]:
        rows = counted(batch["accepted"], "new row")
        rows += f", {batch['recent_test']:,} of them for testing"
        name = batch["batch"] or f"none, of {batch['delivery']}"
        lines += [("batch", name), ("rows", rows)]
        lines += [("refused", f"{batch['refused_rows']:,}")] if batch["refused_rows"] else []
        shown = batch["refused"][:SHOWN_REFUSED]
        lines += [("", f"{row['what']}: {row['reason']}") for row in shown]
        if check := batch["check"]:
            lines.append(
                ("check", ". ".join([check["outcome"], " ".join(check["why"])]).strip(". "))
            )
            lines += [("", check["note"])] if check["note"] else []
            if check["contradicted"] is not None:
                share = f"{check['contradicted']:,} of {check['rows']:,} labels"
                lines.append(("", f"the present model contradicts {share}"))
    lines += [("waiting", name) for name in result["waiting"]]
    lines += _report(result, ui=ui)
    checks = ((batch["batch"], batch["check"] or {}) for batch in result["batches"])
    broken = [name for name, check in checks if check.get("outcome") == "broken"]
    if broken:
        command = data_command("show", broken[0], result["dataset"]).strip("`")
        lines.append(("next", f"{command}, then retract or accept it"))
    elif result["accepted"]:
        lines.append(("next", f"./run retrain{dataset_option(result['dataset'])}"))
    _write(lines)


def _flow_run_id(report: Path) -> str:
    import json

    return str(json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["flow_run_id"])


def print_preflight(found: dict[str, Any], *, ui: bool) -> None:  # noqa: ARG001 - as print_summary
    """Print the checks, devices and timings of a preflight."""
    from tasks import preflight

    table = preflight.rows(found)
    wide = max(len(row["check"]) for row in table)
    for row in table:
        sys.stdout.write(f"{row['check']:<{wide}}  {row['result']:<6} {row['found']}\n")


def print_error(error: Exception, *, debug: bool) -> int:
    """Print one sentence about what went wrong, and return the exit code."""
    if debug:
        traceback.print_exception(error)
    bad_argument = isinstance(error, (*ARGUMENT_ERRORS, CycloptsError, ValidationError))
    say(f"Error: {_sentence(error)}")
    if bad_argument:
        for problem in datasets.problems():  # what was asked for may be one of these
            say(problem)
    else:
        for note in getattr(error, "__notes__", []):
            say(f"Log: {note}")
    return 2 if bad_argument else 1


def _sentence(error: Exception) -> str:
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if isinstance(cause, ARGUMENT_ERRORS):  # from within the parsing
        return str(cause)
    if isinstance(error, UnusedCliTokensError):
        return f"There is no option before {' '.join(error.unused_tokens or ())!r}: name one."
    if not isinstance(cause, ValidationError):
        return str(error) or type(error).__name__
    first = cause.errors()[0]
    argument: Any = getattr(error, "argument", None)
    name = str(first["loc"][-1] if first["loc"] else argument.name)
    option = "--" + name.removeprefix("--").replace("_", "-")
    if first["type"] == "string_pattern_mismatch":  # of --image-size alone
        return f"{option} is {first['input']!r}: write height x width, as 64x64 or 64x64x3."
    return f"{option} is {first['input']!r}: {first['msg'].replace('Input should', 'it should')}."


def _next(result: dict[str, Any]) -> str:
    """Return the command that is most worth typing now."""
    recipe, option = result["recipe"], dataset_option(result["dataset"])
    if better := {"post": "mlp", "mlp": "cnn"}.get(recipe):
        return f"./run train{option} --recipe {better}"
    return f"./run retrain{option} --recipe {recipe}"
