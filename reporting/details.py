"""Details: what a page shows of a run beside its figures and steps. `tasks/` hands it over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Score:
    """How many rows of a test set a model has right.

    Fields:
        label: the model, for people.
        accuracy: in 0..1.
        interval: of 95 %; None where it is not known.
        errors: rows that it has wrong.
        rows: of the test set.
        model: its name, where it is known.
        is_this: whether it is the model of this run.
    """

    label: str
    accuracy: float
    interval: tuple[float, float] | None
    errors: int
    rows: int
    model: str | None = None
    is_this: bool = False


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts by true class (rows) and predicted class (columns)."""

    classes: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Rows of one class that were taken for another."""

    true: str
    predicted: str
    errors: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the look at a batch found.

    Fields:
        batch: its name.
        outcome: sound, drift or broken; None where nobody looked yet.
        sentences: why, and what was not looked at.
        accepted: why it is trained on although it is broken.
    """

    batch: str
    outcome: str | None
    sentences: Sequence[str]
    accepted: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """An artifact from which the model was made, directly or not.

    Fields:
        what: it is, for people.
        artifact: its name.
        depth: steps below the model.
        about: its rows, where it has any.
    """

    what: str
    artifact: str
    depth: int
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a page shows beside figures and steps; what a run does not have is empty.

    Fields:
        scores: by test set, the run's own model first.
        note: of the scores, such as why the champion is not among them.
        curves: by title, the values of each epoch by name.
        confusion: of the official test set, where its counts can be read.
        confused: the largest of its counts that are wrong.
        checks: of the batches.
        lineage: the model first, then what it was made from.
        drawn: names of pictures that the page does not embed, because it shows their content.
        on_white: names of pictures that have a white background.
    """

    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    note: str = ""
    curves: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    confusion: Confusion | None = None
    confused: Sequence[Confused] = ()
    checks: Sequence[Checked] = ()
    lineage: Sequence[Source] = ()
    drawn: frozenset[str] = frozenset()
    on_white: frozenset[str] = frozenset()
