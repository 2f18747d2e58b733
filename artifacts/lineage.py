"""Lineage: where an artifact came from, and for which code it counts."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from artifacts import keys, layout, records
from artifacts.artifact import find_damage
from artifacts.errors import ArgumentError, InputError
from artifacts.keys import KeyComponents, KeyRule
from artifacts.locks import lock
from artifacts.records import Record


@dataclass(frozen=True)
class Lineage:
    """How an artifact was made: its record, None where that is lost, and its inputs."""

    name: str
    record: Record | None
    inputs: dict[str, "Lineage"]

    @cached_property
    def components(self) -> KeyComponents:
        """All that it was made from."""
        return self.record.components() if self.record else {}

    def row(self) -> dict[str, Any]:
        """Return the lineage, JSON-ready."""
        return {
            "artifact": self.name,
            "step": self.components.get("step"),
            "metadata": self.record.artifact.metadata if self.record else None,
            "adopted": records.adoption(self.components),
            "parameters": keys.parameters(self.components),
            "code": keys.files(self.components),
            "versions": keys.versions(self.components),
            "inputs": {name: lineage.row() for name, lineage in self.inputs.items()},
        }


def trace(asked: str) -> Lineage:
    """Return where an artifact came from, down to the artifacts without inputs.

    Args:
        asked: its folder, a file in that, or its name, of which the first letters are enough.

    Raises:
        ArgumentError: no artifact matches, or more than one.
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records.everything(), key=lambda record: record.last_used, reverse=True):
        by_name[record.artifact.name].append(record)
    texts = (Path(asked).resolve().as_posix(), asked)
    whole = [match[0] for match in map(layout.ARTIFACT_NAME.search, texts) if match]
    start = next((name for name in whole if name in by_name), asked.removeprefix("cache/"))
    found = [
        name
        for name in by_name
        if name.startswith(start) or (start and name.partition("/")[2].startswith(start))
    ]
    if not found:
        raise ArgumentError(f"No record of the cache names an artifact {asked!r}.")
    if len(found) > 1:
        raise ArgumentError(f"{asked!r} matches several artifacts: {', '.join(found)}.")
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for name, there in by_name.items():
        by_digest[name.partition("/")[2]] += there
    return _trace(found[0], by_name[found[0]], by_digest, frozenset())


def _trace(
    name: str, there: list[Record], by_digest: Mapping[str, list[Record]], above: frozenset[str]
) -> Lineage:
    """Follow the record that was used last, but not in a circle: steps may undo each other."""
    for record in there:
        known = above | {record.artifact.name}
        inputs = keys.inputs(record.components())
        makers = {
            digest: [r for r in by_digest.get(digest, ()) if r.artifact.name not in known]
            for digest in inputs.values()
        }
        if all(makers[digest] or digest not in by_digest for digest in makers):
            before = {n: _trace(of, makers[of], by_digest, known) for n, of in inputs.items()}
            return Lineage(record.artifact.name, record, before)
    return Lineage(name, None, {})


def adopt(rules: Mapping[str, KeyRule], *, dry_run: bool = False) -> list[dict[str, str]]:
    """Declare results of the previous code valid for the present code.

    Only artifacts whose key differs from today's in nothing but code are adopted, and of each step
    and group only those of the code that was used last.

    Args:
        rules: the key rule of each step, by its name.
        dry_run: only say.

    Returns:
        What was adopted, and after which change.
    """
    by_place: dict[str, list[Record]] = defaultdict(list)
    for record in records.everything():
        by_place[record.place].append(record)
    adopted = []
    for place, there in sorted(by_place.items()):
        rule = rules.get(place.partition("/")[0])
        there.sort(key=lambda record: record.last_used, reverse=True)
        known = [record for record in there if record.components()]
        if rule is None or not known:
            continue
        previous = keys.files(known[0].components())
        for record in known:
            if keys.files(record.components()) == previous:
                adopted += _adopt(record, rule, dry_run=dry_run)
    return adopted


def _adopt(record: Record, rule: KeyRule, *, dry_run: bool) -> list[dict[str, str]]:
    old = record.components()
    new = with_present_code(old, rule)
    if new is None or find_damage(record.artifact):
        return []
    key = keys.key_of(new, record.place.partition("/")[2])
    because = "; ".join(keys.differences(old, new))
    with lock(key):
        if records.path_of(key).exists():
            return []
        if not dry_run:
            records.adopt(record, key, new, because)
    return [{"artifact": record.artifact.name, "step": record.place, "because": because}]


def with_present_code(old: KeyComponents, rule: KeyRule) -> KeyComponents | None:
    """Return the components of the same call under today's code; None if more than code differs."""
    try:
        code = rule.code(keys.parameters(old))
    except (InputError, KeyError):
        return None
    kept = {n: v for n, v in old.items() if n not in keys.ANNOTATIONS}
    arguments = {n: v for n, v in kept.items() if not n.startswith(keys.CODE)}
    new = arguments | code
    return new if keys.same_but_for_code(old, new) else None


def descendants(
    digests: Iterable[str], *, without: Collection[str] = (), needed: bool = False
) -> list[Record]:
    """Return the records of all that was made from these artifacts, directly or not.

    Args:
        digests: of the artifacts.
        without: steps that only look at an artifact, and whose results do not rest on it.
        needed: leave out artifacts that were also made without these.
    """
    by_input: dict[str, list[Record]] = defaultdict(list)
    others: Counter[str] = Counter()  # records of each artifact that are not found yet
    for record in records.everything():
        others[record.artifact.digest] += 1
        if record.step not in without:
            for made_from in set(keys.inputs(record.components()).values()):
                by_input[made_from].append(record)
    found: dict[str, Record] = {}
    waiting = list(digests)
    while waiting:
        for record in by_input[waiting.pop()]:
            if record.key not in found:
                found[record.key] = record
                others[record.artifact.digest] -= 1
                if not needed or not others[record.artifact.digest]:
                    waiting.append(record.artifact.digest)
    return [each for each in found.values() if not (needed and others[each.artifact.digest])]
