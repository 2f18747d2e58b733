"""Predict: what the champion says of pictures; `load_champion` for programs."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.code import CodeRule, components
from artifacts.errors import ArgumentError, InputError
from classifier import datasets
from registry import log, models
from tasks import champion

if TYPE_CHECKING:
    import numpy as np

    from classifier.data.inputs import Refused
    from classifier.models import Model

FORMS = (".parquet", ".csv", ".json")
PARQUET_ROWS = 10_000  # of a row group


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one picture.

    Fields:
        picture: as it was given.
        label: the class of the highest probability; `probability` is that.
        runner_up, runner_up_probability: the next.
        model: that says so.
    """

    picture: str
    label: str
    probability: float
    runner_up: str
    runner_up_probability: float
    model: str


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A loaded champion.

    Fields:
        name: of its artifact.
        model: its network, shape and classes.
        device: cpu, cuda or mps.
        warnings: what differs from when it was trained.
    """

    name: str
    model: "Model"
    device: str
    warnings: tuple[str, ...] = ()

    def probabilities(self, images: "np.ndarray") -> "np.ndarray":
        """Return probabilities, float32 [N, classes], of prepared uint8 images [N, *shape].

        Raises:
            InputError: the images have another shape.
        """
        import numpy as np

        from classifier import devices
        from classifier import models as files

        place = devices.resolve_device(self.device)
        return files.predict(self.model, images.astype(np.float32) / 255, place)

    def predict(self, paths: Sequence[str | Path]) -> Iterator["Prediction | Refused"]:
        """Yield what it says of each picture, or why that cannot be used.

        Args:
            paths: pictures, folders of any depth, Parquet files.

        Raises:
            InputError: a path is not there, or a Parquet file cannot be read.
        """
        from classifier.data import unlabelled
        from classifier.data.inputs import Subject

        declared = datasets.load(self.model.dataset)
        subject = Subject(
            dataset=self.model.dataset,
            shape=self.model.shape,
            classes=self.model.classes,
            prepare=declared.prepare,
        )
        for pictures in unlabelled.read([Path(path) for path in paths], subject):
            yield from pictures.refused
            if pictures.names:
                yield from self._told(pictures.names, self.probabilities(pictures.images))

    def _told(self, names: Sequence[str], found: "np.ndarray") -> Iterator[Prediction]:
        best = found.argsort(axis=1, kind="stable")[:, ::-1][:, :2]
        for name, row, (first, second) in zip(names, found, best.tolist(), strict=True):
            yield Prediction(
                picture=name,
                label=self.model.classes[first],
                probability=float(row[first]),
                runner_up=self.model.classes[second],
                runner_up_probability=float(row[second]),
                model=self.name,
            )


def load_champion(dataset: str, device: str = "auto") -> Champion:
    """Load the model of a dataset that is in use now.

    Raises:
        InputError: there is none, or its files are missing or damaged.
    """
    from classifier import devices
    from classifier import models as files

    known = models.current(dataset).champion
    if known is None:
        raise champion.no_champion(dataset)
    folder = champion.intact(known.model).path
    return Champion(
        name=known.model,
        model=files.load(folder),
        device=devices.resolve_device_name(device),
        warnings=tuple(_edited(json.loads((folder / "model.json").read_text())["code"])),
    )


def _edited(code: dict[str, str]) -> Iterator[str]:
    """Yield a sentence for each file that reads the model and has changed since its training."""
    rule = CodeRule(root=datasets.PROJECT, ignored_keywords=(("Dataset", datasets.DESCRIPTIVE),))
    for name, digest in code.items():
        path = datasets.PROJECT / name
        found = components(path, rule).get(f"code {name}") if path.exists() else None
        if found != digest:
            yield f"{name} has changed since the champion was trained: train it again."


def write(
    found: Iterator["Prediction | Refused"], out: Path, dataset: str, name: str
) -> tuple[int, list[dict[str, str]]]:
    """Write predictions into a file as they come, and note in the log that this model made them.

    Args:
        found: the predictions.
        out: .parquet, .csv or .json; it appears when it is whole.
        dataset: its name.
        name: of the model.

    Returns:
        How many there are, and the pictures that cannot be used.

    Raises:
        ArgumentError: the name has another ending.
        InputError: it cannot be written.
    """
    check_out(out)
    refused: list[dict[str, str]] = []
    count = 0

    def predictions() -> Iterator[dict[str, Any]]:
        nonlocal count
        for one in found:
            if isinstance(one, Prediction):
                count += 1
                yield asdict(one)
            else:
                refused.append({"what": one.what, "reason": one.reason})

    beside = out.with_name(f".{os.getpid()}{out.suffix}.tmp")
    try:
        _WRITERS[out.suffix](beside, predictions())
        beside.replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    log.append("predict", dataset, model=name, rows=count, out=out.name)
    return count, refused


def check_out(out: Path, paths: Sequence[Path] = ()) -> None:
    """Check, before anything is predicted, that the file can be written.

    Raises:
        ArgumentError: its name has another ending, its folder is not there, or it is one of the
            inputs.
    """
    place = out.resolve()
    if out.is_dir():
        raise ArgumentError(f"--out is {str(out)!r}: that is a folder.")
    if out.exists() and any(place.is_relative_to(path.resolve()) for path in paths):
        raise ArgumentError(f"--out is {str(out)!r}: that is one of the inputs. Choose another.")
    if out.suffix not in FORMS:
        raise ArgumentError(f"--out is {str(out)!r}: end it in {', '.join(FORMS)}.")
    if not out.parent.is_dir():
        raise ArgumentError(f"--out is {str(out)!r}: there is no folder {str(out.parent)!r}.")


def _write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(Prediction.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for row in rows:
            file.write(separator + json.dumps(row))
            separator = ",\n"
        file.write("\n]\n" if separator == ",\n" else "[]\n")


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("picture", "label", "runner_up", "model")
    schema = pa.schema(
        [(n, pa.string() if n in texts else pa.float64()) for n in Prediction.__dataclass_fields__]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while part := list(islice(rows, PARQUET_ROWS)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


_WRITERS = {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}
