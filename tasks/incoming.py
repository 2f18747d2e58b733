"""What lies in store/incoming/<dataset>/: deliveries that are looked at by size and time alone."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prefect.logging import get_run_logger

from artifacts.artifact import Artifact
from classifier.errors import InputError
from tasks.base import subject_of
from tasks.ingest import ingest
from tasks.intake import Intake
from tasks.seen import Stamps, folder_of, leads_out, read_seen, remember, stamps_of

QUIET, DEFAULT_QUIET = "RETRAIN_QUIET_SECONDS", "60"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What came in together.

    Fields:
        name: of its file or folder.
        paths: to ingest.
        stamps: of its files.
    """

    name: str
    paths: tuple[Path, ...]
    stamps: Stamps


def take_in_incoming(dataset: str, base: Artifact) -> tuple[list[Intake], list[str]]:
    """Ingest each delivery that lies there; one that cannot be used does not hold up the others.

    Returns:
        What became of each, and the names of those that are still being written.
    """
    said = get_run_logger()
    found, waiting = new_deliveries(dataset, subject_of(dataset, base).classes)
    for name in waiting:
        said.info("%s is still being written: it is left for the next run", name)
    if not found and not waiting:
        said.info("nothing new lies in %s", folder_of(dataset))
    taken = []
    for delivery in found:
        try:
            for path in delivery.paths:
                check_inside(path, folder_of(dataset))
            taken.append(ingest(dataset, delivery.paths, None, base))
        except InputError as error:  # about the files; a full disk, say, ends the run
            said.warning("%s was not taken in: %s", delivery.name, error)
            refused = [{"what": delivery.name, "reason": str(error)}]
            taken.append(Intake(delivery=delivery.name, refused=refused, refused_rows=1))
        remember(dataset, delivery.stamps)
    return taken, waiting


def new_deliveries(dataset: str, classes: tuple[str, ...]) -> tuple[list[Delivery], list[str]]:
    """Return the deliveries that were not looked at, and the names of those still being written.

    A folder that holds class folders is one delivery; else each folder and Parquet file is one, and
    all IDX files together are one.

    Raises:
        InputError: RETRAIN_QUIET_SECONDS is no number, or a negative one.
    """
    top = folder_of(dataset)
    if not top.is_dir():
        return [], []
    seen = read_seen(dataset)
    found, unsettled = [], []
    for name, paths in parts(top, classes):
        stamps = {key: stamp for path in paths for key, stamp in stamps_of(path, top)}
        if not stamps or all(seen.get(key) == stamp for key, stamp in stamps.items()):
            continue
        newest = max(modified for _, modified in stamps.values()) / 1e9
        if newest > time.time() - quiet_seconds():
            unsettled.append(name)
        else:
            found.append(Delivery(name=name, paths=tuple(paths), stamps=stamps))
    return found, unsettled


def quiet_seconds() -> float:
    """Return how long a delivery must be left alone before it is read.

    Raises:
        InputError: RETRAIN_QUIET_SECONDS is no number, or a negative one.
    """
    text = os.environ.get(QUIET) or DEFAULT_QUIET
    with suppress(ValueError):
        if 0 <= float(text) < math.inf:  # NaN is neither
            return float(text)
    raise InputError(f"{QUIET} is {text!r}: give a number of seconds, 0 or more.")


def check_inside(path: Path, top: Path) -> None:
    """Check that a delivery is no link to what lies elsewhere.

    Who may put files into the incoming folder may not have others read or erased.

    Raises:
        InputError: it is one.
    """
    if leads_out(path, top):
        raise InputError(
            f"{path.name} is a symbolic link that leads out of the incoming folder: put the files "
            "there, or name their path to `./run ingest`."
        )


def parts(top: Path, classes: tuple[str, ...]) -> Iterator[tuple[str, list[Path]]]:
    """Yield name and paths of each delivery."""
    entries = sorted(path for path in top.iterdir() if not path.name.startswith("."))
    if any(path.is_dir() and path.name in classes for path in entries):
        yield "incoming", [top]
        return
    arrays = []
    for path in entries:
        if not leads_out(path, top) and path.is_file() and _is_idx(path):
            arrays.append(path)
        else:
            yield path.name, [path]
    if arrays:
        yield arrays[0].name, arrays


def _is_idx(path: Path) -> bool:
    from classifier.data.inputs import files

    try:
        return files.form(str(path))[0] == "idx"
    except InputError:  # it cannot be read: a delivery of its own, which says so
        return False
