"""Corrections: new labels for rows, or rows that no longer count, as an immutable patch."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts import artifact, layout
from artifacts.errors import InputError
from registry import data, log
from tasks import holdings
from tasks.base import known_base, subject_of

DROP = "drop"  # in place of a class; a class of that name is meant where there is one


def correct(dataset: str, file: Path, why: str) -> dict[str, Any]:
    """Take corrections from a CSV file with the columns `digest` and `label`; all or none.

    Returns:
        How many labels are corrected and rows dropped, how many rows of each split are affected,
        and the runs whose scores are on other test labels.

    Raises:
        InputError: the file cannot be read, a label is no class, or no row has that digest.
    """
    names = subject_of(dataset, known_base(dataset)).classes
    labels: dict[str, int] = {}
    for line, digest, label in _lines(file):
        dropped = label == DROP and DROP not in names
        if not dropped and label not in names:
            near = next((name for name in names if name.lower() == label.lower()), None)
            hint = f"did you mean {near!r}?" if near else f"the classes are {', '.join(names)}."
            raise InputError(f"{file}, line {line}: there is no class {label!r}: {hint}")
        number = -1 if dropped else names.index(label)
        if labels.setdefault(digest, number) != number:
            raise InputError(f"{file}, line {line}: {digest} has another label above: keep one.")
    if not labels:
        raise InputError(f"{file} has no rows: give a digest and a label in each line.")
    affected = _affected(dataset, labels)
    missing = labels.keys() - affected.keys()
    if missing:
        raise InputError(
            f"{file}: {len(missing)} digests belong to no row of {dataset}, such as "
            f"{min(missing)}. `./run data rows` lists those that there are."
        )
    with artifact.draft(data.PATCHES, permanent=True) as new:
        text = json.dumps({"format": 1, "labels": dict(sorted(labels.items()))}, indent=1)
        (new.folder / "patch.json").write_text(text + "\n", encoding="utf-8")
    log.append("correct", dataset, patch=new.artifact.digest, why=why)
    splits = [split for found in affected.values() for split in found]  # a row may be in several
    return {
        "patch": new.artifact.name,
        "corrected": sum(label >= 0 for label in labels.values()),
        "dropped": sum(label < 0 for label in labels.values()),
        **{split: splits.count(split) for split in ("train", "test", "recent")},
        "not_comparable": _scored_runs(dataset, {*splits}),
    }


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, digest and label of each row.

    Raises:
        InputError: the file cannot be read, or is no such CSV.
    """
    if file.is_char_device():
        raise InputError(f"{file} cannot be read: it is a device.")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened)
            if not {"digest", "label"} <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{file} needs the columns digest and label; it has "
                    f"{', '.join(map(str, reader.fieldnames or ())) or 'none'}."
                )
            for row in reader:
                digest = str(row["digest"] or "").strip().lower()
                label = str(row["label"] or "").strip()
                if not layout.SHA_256.fullmatch(digest):
                    raise InputError(
                        f"{file}, line {reader.line_num}: {digest!r} is no digest of a row: that "
                        "is 64 hexadecimal digits."
                    )
                yield reader.line_num, digest, label
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is no CSV in UTF-8 ({error}): save it as one.") from error


def _affected(dataset: str, labels: dict[str, int]) -> dict[str, set[str]]:
    """Return the splits in which each digest occurs."""
    found: dict[str, set[str]] = {}
    for name in (None, *(batch.name for batch in data.current(dataset).batches)):
        for row in holdings.rows(dataset, name, None):
            if row["digest"] in labels:
                found.setdefault(row["digest"], set()).add(row["split"])
    return found


#: Of each test split, what names its rows and labels in a report.
TEST_SETS = {"test": "test_set", "recent": "recent_test_set"}


def _scored_runs(dataset: str, splits: set[str]) -> list[str]:
    """Return the finished runs of the dataset that have a score on one of these splits."""
    wanted = {name for split, name in TEST_SETS.items() if split in splits}
    found = []
    for path in sorted(layout.reports().glob("*/report.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a report is for people: a damaged one stops nothing
        if report.get("dataset") == dataset and wanted & report.keys():
            found.append(path.parent.name)
    return found
