"""Search: which seeds and which recipe values a sweep tries, read from short texts.

`0..9` are seeds, `learning_rate=0.005,0.01` are values, and `learning_rate=0.001..0.1` is a range
from which values are drawn. Every draw follows from the field and its number alone, so that a
sweep of more draws begins with those of a smaller one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from random import Random
from typing import Any

from classifier.errors import ArgumentError
from classifier.training.recipe import Recipe

MOST = 1_000  # trials of a sweep
SEEDS = 2**32
DIGITS = 3  # significant ones of a number that is drawn
_ATTEMPTS = 1_000  # for each recipe that is drawn, until the ranges are too narrow

Values = dict[str, Any]  # of recipe fields, by name


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a sweep tries for one recipe field: values, or a range from which to draw.

    Fields:
        name: of the field.
        values: all of them; none for a range.
        low, high: ends of the range, both included.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def drawn(self, number: int) -> Any:
        """Return the draw of that number: a range above 0 is drawn on a logarithmic scale."""
        random = Random(f"{self.name} {number}")  # noqa: S311 - no secret
        if self.values:
            return random.choice(self.values)
        if self.low > 0:
            value = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = random.uniform(self.low, self.high)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


def read_seeds(text: str) -> list[int]:
    """Return the seeds that a text such as 0..9 or 0,3,5..7 names, each once; 0..9 includes 9.

    Raises:
        ArgumentError: it names none, or too many.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,30})\s*(?:\.\.\s*([0-9]{1,30})\s*)?", part)
        if not match:
            raise ArgumentError(
                f"--seeds is {text!r}: write 0..9, which includes 9, or single ones as 0,3,5."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        found += _whole_numbers(first, last, f"--seeds is {text!r}")
    if max(found) >= SEEDS:
        raise ArgumentError(f"--seeds is {text!r}: give seeds below {SEEDS:,}.")
    return list(dict.fromkeys(found))


def read_choices(texts: Sequence[str]) -> list[Choices]:
    """Return the choices that texts such as learning_rate=0.005,0.01 name.

    Raises:
        ArgumentError: a field is unknown or named twice, or a value is none that it takes.
    """
    found: dict[str, Choices] = {}
    for text in texts:
        one = _read(text)
        if one.name in found:
            raise ArgumentError(
                f"--set names {one.name} twice: give all its values at once, as "
                f"--set {one.name}=A,B."
            )
        found[one.name] = one
    return list(found.values())


def combine(choices: Sequence[Choices], draws: int | None) -> list[Values]:
    """Return the values of each recipe: all combinations, or as many as are drawn.

    Raises:
        ArgumentError: there is nothing to draw, or a range and no number of draws.
    """
    if draws is not None:
        return _drawn(choices, draws)
    for one in choices:
        if not one.values:
            raise ArgumentError(
                f"--set {one.name} is a range: say with --random how many recipes to draw, or give "
                f"its values, as --set {one.name}={one.low:g},{one.high:g}."
            )
    total = math.prod(len(one.values) for one in choices)
    if total > MOST:
        raise ArgumentError(
            f"--set gives {total:,} recipes, and {MOST:,} are the most: draw some with --random."
        )
    names = [one.name for one in choices]
    return [
        dict(zip(names, found, strict=True)) for found in product(*(one.values for one in choices))
    ]


def _drawn(choices: Sequence[Choices], draws: int) -> list[Values]:
    if draws > MOST:
        raise ArgumentError(f"--random is {draws:,}: {MOST:,} recipes are the most.")
    if not choices:
        raise ArgumentError(
            "--random draws among the values of --set: give some, as "
            "--set learning_rate=0.001..0.1."
        )
    total = math.prod(len(one.values) or math.inf for one in choices)
    if total < draws:
        raise ArgumentError(
            f"--random is {draws}, and --set gives {total} recipes: leave --random out to try all."
        )
    found: list[Values] = []
    for number in range(draws * _ATTEMPTS):
        drawn = {one.name: one.drawn(number) for one in choices}
        if drawn not in found:
            found.append(drawn)
        if len(found) == draws:
            return found
    raise ArgumentError(
        f"The ranges of --set hold only {len(found)} recipes of {DIGITS} digits, and --random "
        f"is {draws}: widen them."
    )


def _read(text: str) -> Choices:
    name, equals, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    kinds = {item.name: item.type for item in fields(Recipe)}
    if not equals or not rest.strip():
        raise ArgumentError(
            f"--set is {text!r}: write a field and its values, as learning_rate=0.005,0.01."
        )
    if name not in kinds:
        raise ArgumentError(
            f"--set names {name!r}, which is no field of a recipe: choose one of "
            f"{', '.join(kinds)}."
        )
    kind, parts = kinds[name], [part.strip() for part in rest.split(",")]
    if kind is float and len(parts) == 1 and ".." in rest:
        low, high = (_value(name, part, kind) for part in rest.split("..", 1))
        if not low < high:
            raise ArgumentError(f"--set is {text!r}: give the lower end of the range first.")
        return Choices(name=name, low=low, high=high)
    found: list[Any] = []
    for part in parts:
        if kind is int and ".." in part:
            first, last = (_value(name, end, kind) for end in part.split("..", 1))
            found += _whole_numbers(first, last, f"--set is {text!r}")
        else:
            found.append(_value(name, part, kind))
    return Choices(name=name, values=tuple(dict.fromkeys(found)))


def _value(name: str, text: str, kind: Any) -> Any:
    """Return the value that a field takes; raises ArgumentError where it takes none such."""
    try:
        value = kind(text) if kind in {int, float} else text.strip()
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise ArgumentError(f"--set {name} is {text!r}: give {wanted}.") from error
    option = f"--{name.replace('_', '-')}"
    try:
        Recipe().override({name: value})
    except ArgumentError as error:
        raise ArgumentError(str(error).replace(option, f"--set {name}", 1)) from error
    return value


def _whole_numbers(first: int, last: int, what: str) -> Sequence[int]:
    if last < first:
        raise ArgumentError(f"{what}: {first}..{last} ends before it starts.")
    if last - first >= MOST:
        raise ArgumentError(f"{what}: {MOST:,} are the most.")
    return range(first, last + 1)
