"""The command that asks the champion: ./run predict. It needs no server."""

from dataclasses import asdict
from typing import Any

from flows.cli.answer import Answer, short
from flows.cli.paths import AllNamed, Named
from flows.names import DatasetName
from flows.parameters import Device
from reporting import progress
from tasks import predict as task
from tasks.predict import Prediction


def predict(
    paths: AllNamed,
    /,
    *,
    dataset: DatasetName = "mnist",
    out: Named | None = None,
    device: Device = "auto",
) -> Answer:
    """Say what the champion sees in pictures.

    Args:
        paths: Pictures, folders of any depth, or Parquet files with a column `image`
        dataset: Dataset whose champion is asked
        out: Write the predictions into this .parquet, .csv or .json file
        device: Where the champion runs
    """
    if out is not None:
        task.check_out(out, paths)
    champion = task.load_champion(dataset, device)
    found = champion.predict(paths)
    with progress.counter("predict") as advance:
        counted = _counted(found, advance)
        if out is not None:
            count, refused = task.write(counted, out.resolve(), dataset, champion.name)
            rows: list[dict[str, Any]] = []
            text = f"{count:,} predictions in {out}"
        else:
            rows, refused = _parted(counted)
            count = len(rows)
            text = _table(rows)
    told: dict[str, Any] = {"model": champion.name, "predictions": rows, "refused": refused}
    if out is not None:
        told |= {"out": str(out.resolve()), "rows": count}
    warnings = (*champion.warnings, *(f"{row['what']}: {row['reason']}" for row in refused))
    text = f"{text}\n{short(champion.name)}"
    return Answer(told, text, code=0 if count else 1, warnings=warnings)


def _counted(found: Any, advance: Any) -> Any:
    for number, one in enumerate(found, 1):
        advance(number)
        yield one


def _parted(found: Any) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    rows, refused = [], []
    for one in found:
        if isinstance(one, Prediction):
            rows.append(asdict(one))
        else:
            refused.append({"what": one.what, "reason": one.reason})
    return rows, refused


def _table(rows: list[dict[str, Any]]) -> str:
    wide = max([len("picture"), *(len(row["picture"]) for row in rows)])
    label = max([len("class"), *(len(row["label"]) for row in rows)])
    lines = [f"{'picture':<{wide}}  {'class':<{label}}  {'probability':>11}  runner-up"]
    lines += [
        f"{row['picture']:<{wide}}  {row['label']:<{label}}  {row['probability']:>11.4f}  "
        f"{row['runner_up']} {row['runner_up_probability']:.4f}"
        for row in rows
    ]
    return "\n".join(lines)
