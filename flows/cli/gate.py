"""The command about the gate: ./run gate budget. It needs no server."""

from cyclopts import App

from flows.cli.answer import Answer
from flows.names import DatasetName
from tasks import gate_budget

app = App(
    name="gate",
    help="Show what the gate can still find.",
    usage="Usage: ./run gate COMMAND [OPTIONS]",
)


@app.command
def budget(*, dataset: DatasetName = "mnist") -> Answer:
    """Show the looks used, the smallest gain that can still be found, and whether rows are due.

    Args:
        dataset: Dataset whose test rows are looked at
    """
    found = gate_budget.budget(dataset)
    lines = [
        ("since", found["since"] or "no look yet"),
        ("looks", f"{found['looks_used']} of {found['verdicts']} verdicts"),
        ("next level", f"{found['next_alpha']:.2g}"),
    ]
    if found["detectable_gain"] is not None:
        gain, errors = found["detectable_gain"], found["champion_errors"]
        lines.append(("least gain", f"{gain:.0f} rows; the champion has {errors} errors"))
        lines.append(("new rows", "are due" if found["new_rows_due"] else "are not due"))
    return Answer(found, "\n".join(f"{name:<10} {text}" for name, text in lines))


app["budget"].usage = "Usage: ./run gate budget [OPTIONS]"
