"""The commands that look after new data: ./run data COMMAND. They need no server."""

from csv import DictWriter
from io import StringIO
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from artifacts.text import counted
from flows.cli.answer import Answer, short, size
from flows.cli.paths import Named
from flows.names import DatasetName
from tasks import corrections, holdings

app = App(
    name="data",
    help="List the batches of new data; retract, correct and erase.",
    usage="Usage: ./run data COMMAND [OPTIONS]",
)


@app.command(name="list")
def list_(*, dataset: DatasetName = "mnist") -> Answer:
    """List the batches: rows that came in, those left out of them, and whether they count.

    Args:
        dataset: Dataset to which they belong
    """
    rows = holdings.listed(dataset)
    lines = [
        f"{row['batch']:<24} {row['train']:>9,} {row['recent']:>8,} {_known(row['left_out']):>8} "
        f"{row['refused']:>8,}  {row['at'].replace('T', ' ')[:16]}  {row['status']}"
        for row in rows
    ]
    head = f"{'batch':<24} {'train':>9} {'recent':>8} {'left out':>8} {'refused':>8}  "
    head += f"{'came in, UTC':<16}  status"
    return Answer(rows, "\n".join([head, *lines]) if rows else f"No data of {dataset} has come in.")


@app.command
def show(batch: str, /, *, dataset: DatasetName = "mnist") -> Answer:
    """Show a batch: its classes, what was refused, what the check said, and what rests on it.

    Args:
        batch: Its name
        dataset: Dataset to which it belongs
    """
    found = holdings.show(dataset, batch)
    lines = [f"{name:<12} {text}" for name, text in _shown(found)]
    return Answer(found, "\n".join(lines))


@app.command
def rows(
    *,
    batch: str | None = None,
    split: Literal["train", "test", "recent"] | None = None,
    dataset: DatasetName = "mnist",
) -> Answer:
    """List rows with their digests, as CSV: the form that `correct` takes.

    Args:
        batch: Of this batch; the published rows unless given
        split: Only train, test or recent
        dataset: Dataset to which they belong
    """
    found = list(holdings.rows(dataset, batch, split))
    text = StringIO()
    writer = DictWriter(text, ("digest", "label", "split"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return Answer(found, text.getvalue().rstrip("\n"))


@app.command
def retract(batch: str, /, *, why: str, dataset: DatasetName = "mnist") -> Answer:
    """Stop using a batch, and say what rests on it.

    Args:
        batch: Its name
        why: The reason, for the log
        dataset: Dataset to which it belongs
    """
    found = holdings.retract(dataset, batch, why)
    lines = [f"{batch} no longer counts: the next training does without it.", *_rests(found)]
    return Answer(found, "\n".join(lines))


@app.command
def restore(batch: str, /, *, why: str = "", dataset: DatasetName = "mnist") -> Answer:
    """Use a retracted batch again, in its old place.

    Args:
        batch: Its name
        why: The reason, for the log
        dataset: Dataset to which it belongs
    """
    found = holdings.restore(dataset, batch, why)
    return Answer(found, f"{batch} counts again.")


@app.command
def accept(batch: str, /, *, why: str, dataset: DatasetName = "mnist") -> Answer:
    """Train on a batch although its check found it broken.

    Args:
        batch: Its name
        why: The reason, for the log
        dataset: Dataset to which it belongs
    """
    found = holdings.accept(dataset, batch, why)
    return Answer(found, f"{batch} is accepted: the next training uses it.")


@app.command
def correct(file: Named, /, *, why: str = "", dataset: DatasetName = "mnist") -> Answer:
    """Correct labels: a CSV with the digest of a row and its label, or drop.

    Args:
        file: The CSV; further columns are ignored
        why: The reason, for the log
        dataset: Dataset to which the rows belong
    """
    found = corrections.correct(dataset, file, why)
    splits = (("train", "train"), ("test", "official test"), ("recent", "recent test"))
    affected = ", ".join(counted(found[split], f"{name} row") for split, name in splits)
    corrected, dropped = counted(found["corrected"], "label"), counted(found["dropped"], "row")
    lines = [
        f"{corrected} corrected, {dropped} dropped.",
        f"Affected: {affected}.",
    ]
    if found["not_comparable"]:
        lines.append(
            f"On other test labels, and not comparable with new ones: the scores of "
            f"{counted(len(found['not_comparable']), 'earlier run')}."
        )
    return Answer(found, "\n".join(lines))


@app.command
def erase(
    digests: Annotated[list[str], Parameter(consume_multiple=True)],
    /,
    *,
    why: str,
    dataset: str = "mnist",
) -> Answer:
    """Remove the pixels of rows from everything below the data folder, for good.

    Args:
        digests: Of the rows, as `data rows` lists them
        why: The reason, for the log
        dataset: Dataset to which they belong, also one that is declared no longer
    """
    from tasks import erasure  # loads Prefect, which the others do without

    found = erasure.erase(dataset, digests, why)
    lines = [f"{name}: {count:,}" for name, count in found["removed"].items() if count]
    lines += [f"models that saw them: {', '.join(map(short, found['models'])) or 'none'}"]
    lines += found["notes"]
    return Answer(found, "\n".join(lines))


def _shown(found: dict[str, Any]) -> list[tuple[str, str]]:
    check = found["check"] or {}
    return [
        ("batch", found["batch"]),
        ("status", found["status"]),
        ("came in", found["at"]),
        ("rows", f"{found['train']:,} to train on, {found['recent']:,} for testing"),
        ("left out", _known(found["left_out"])),
        ("classes", ", ".join(f"{name} {count:,}" for name, count in found["counts"].items())),
        ("refused", f"{found['refused']:,}"),
        *(("", f"{count:,} {reason}") for reason, count in found["reasons"].items()),
        ("check", " ".join([check.get("outcome", "none"), *check.get("why", [])])),
        *([("", check["note"])] if check.get("note") else []),
        *(("", f"{name} {check[name]:.4g}") for name in ("auc", "p_value") if check.get(name)),
        ("artifact", f"{short(found['artifact'])}, {size(found['size'])}"),
        *(("rests on it", short(name)) for name in found["rests_on_it"]),
        *(("champion", short(name)) for name in found["champions"]),
        *(("predicted", text) for text in found["predictions"]),
        *(("report", path) for path in found["reports"]),
    ]


def _known(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _rests(found: dict[str, Any]) -> list[str]:
    names = found["rests_on_it"]
    lines = [f"Rests on it: {short(name)}" for name in names] or ["Nothing rests on it."]
    lines += [f"Champion that rests on it: {short(name)}" for name in found["champions"]]
    return lines + [f"Predictions of such a champion: {text}" for text in found["predictions"]]


for _command in (list_, show, rows, retract, restore, accept, correct, erase):
    _name = _command.__name__.rstrip("_")
    app[_name].usage = f"Usage: ./run data {_name} [OPTIONS]"
