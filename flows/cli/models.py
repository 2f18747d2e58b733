"""The commands about the models of a dataset: ./run models COMMAND. They need no server."""

from datetime import UTC, datetime
from typing import Any

from cyclopts import App

from flows.cli.answer import Answer, short
from flows.names import DatasetName
from tasks import model_list

WIDEST = 60  # letters of a reason in a list

app = App(
    name="models",
    help="List, show and compare models; promote, roll back, block and freeze.",
    usage="Usage: ./run models COMMAND [OPTIONS]",
)


@app.command(name="list")
def list_(*, dataset: DatasetName = "mnist", verify: bool = False) -> Answer:
    """List the models that were judged or promoted, the newest first.

    Args:
        dataset: Dataset on which they were trained
        verify: Also hash every file of the champions, and say what is damaged
    """
    rows = model_list.listed(dataset)
    lines = [
        f"{short(row['model']):<16} {row['status']:<9} {_percent(row['test_accuracy']):>8} "
        f"{_percent(row['recent_accuracy']):>8}  {row['at'].replace('T', ' ')[:16]}  "
        f"{_cut(row['why'])}"
        for row in rows
    ]
    head = f"{'model':<16} {'status':<9} {'official':>8} {'recent':>8}  {'at, UTC':<16}  why"
    text = "\n".join([head, *lines]) if rows else "No model was judged or promoted yet."
    if frozen := model_list.frozen(dataset):
        text += f"\nPromotion is frozen: {frozen}."
    if not verify:
        return Answer(rows, text)
    damaged = model_list.verified(dataset)
    said = [f"{found['what']}: {found['problem']}" for found in damaged]
    closing = [] if said else ["All files are intact."]
    return Answer(rows, "\n".join([text, *closing]), code=1 if damaged else 0, warnings=tuple(said))


def _cut(why: str) -> str:
    """Return the start of a reason; `show` has the whole."""
    return why if len(why) <= WIDEST else f"{why[: WIDEST - 1].rstrip()}…"


@app.command
def show(
    model: str | None = None, /, *, dataset: DatasetName = "mnist", at: str | None = None
) -> Answer:
    """Show a model: its scores, where its files lie, and what was decided about it.

    Args:
        model: Its name, or the start of its digest; the champion unless given
        dataset: Dataset on which it was trained
        at: The champion of this time, such as 2026-11-24 or 2026-11-24T05:00
    """
    moment = None if at is None else _moment(at)
    found = model_list.show(dataset, None if model in {None, "champion"} else model, moment)
    return Answer(found, "\n".join(f"{name:<10} {text}" for name, text in _shown(found)))


@app.command
def diff(first: str, second: str, /, *, dataset: DatasetName = "mnist") -> Answer:
    """Compare two models: their scores, and what they were made of.

    Args:
        first: Name of a model, or the start of its digest
        second: The same of another one
        dataset: Dataset on which they were trained
    """
    found = model_list.differ(dataset, first, second)
    lines = [f"{'':<10} {'  '.join(short(name) for name in found['models'])}"]
    for name in ("test_accuracy", "recent_accuracy"):
        scores = "  ".join(f"{_percent(score):>15}" for score in found[name])
        lines.append(f"{name.removesuffix('_accuracy').replace('test', 'official'):<10} {scores}")
    if found["differences"] is None:
        lines.append("What one of them was made of is not known any more.")
    else:
        lines += found["differences"] or ["They were made of the same."]
    return Answer(found, "\n".join(lines))


@app.command
def promote(
    model: str, /, *, why: str, force: bool = False, dataset: DatasetName = "mnist"
) -> Answer:
    """Put a model in use that passed the gate.

    Args:
        model: Its name, or the start of its digest
        why: The reason, for the log
        force: Also one that was refused or blocked, or while promotion is frozen
        dataset: Dataset on which it was trained
    """
    from tasks import model_changes

    found = model_changes.promote(dataset, model, why, force=force)
    return Answer(found, f"{short(found['champion'])} is the champion of {dataset}.")


@app.command
def rollback(*, why: str, force: bool = False, dataset: DatasetName = "mnist") -> Answer:
    """Go back to the champion of before, and block the one in use.

    Args:
        why: The reason, for the log
        force: Without checking that it scores what its card says
        dataset: Dataset on which it was trained
    """
    from tasks import model_changes

    found = model_changes.rollback(dataset, why, force=force)
    text = f"{short(found['champion'])} is the champion of {dataset} again. "
    return Answer(found, text + f"{short(found['blocked'])} is blocked.")


@app.command
def block(model: str, /, *, why: str, dataset: DatasetName = "mnist") -> Answer:
    """Let a model never be promoted.

    Args:
        model: Its name, or the start of its digest
        why: The reason, for the log
        dataset: Dataset on which it was trained
    """
    from tasks import model_changes

    found = model_changes.block(dataset, model, why)
    return Answer(found, f"{short(found['blocked'])} is blocked.")


@app.command
def freeze(*, why: str, dataset: DatasetName = "mnist") -> Answer:
    """Promote nothing until `thaw`.

    Args:
        why: The reason, for the log
        dataset: Dataset whose champion stays
    """
    from tasks import model_changes

    return Answer(model_changes.freeze(dataset, why), f"The champion of {dataset} stays.")


@app.command
def thaw(*, why: str, dataset: DatasetName = "mnist") -> Answer:
    """Promote again.

    Args:
        why: The reason, for the log
        dataset: Dataset whose champion may be replaced
    """
    from tasks import model_changes

    text = f"The champion of {dataset} may be replaced again."
    return Answer(model_changes.thaw(dataset, why), text)


def _moment(text: str) -> datetime:
    """Return a time; without a zone it is UTC, and a day alone is its end."""
    from artifacts.errors import ArgumentError

    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentError(f"--at is {text!r}: write 2026-11-24 or 2026-11-24T05:00.") from error
    if len(text) <= len("2026-11-24"):
        found = found.replace(hour=23, minute=59, second=59)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _shown(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("model", found["model"]),
        ("status", found["status"]),
        ("recipe", str(found["recipe"])),
    ]
    for score in found.get("scores", []):
        interval = f"{score['low']:.2%} to {score['high']:.2%}"
        rows = f"{score['rows']:,} rows"
        lines.append((score["name"], f"{score['accuracy']:.2%} of {rows}, 95 % {interval}"))
    for look in found["looks"]:
        answer = "passed" if look["promote"] else "refused"
        lines.append(("judged", f"{look['at']} {answer} by the rule {look['rule']}"))
        lines += [("", sentence) for sentence in look["why"]]
    for one in found["promotions"]:
        how = "came back" if one["rollback"] else "forced" if one["forced"] else "promoted"
        lines.append((how, f"{one['at']} {one['why']}"))
    lines += [(name, found[name]) for name in ("folder", "export", "card") if name in found]
    return lines


for _command in (list_, show, diff, promote, rollback, block, freeze, thaw):
    _name = _command.__name__.rstrip("_")
    app[_name].usage = f"Usage: ./run models {_name} [OPTIONS]"
