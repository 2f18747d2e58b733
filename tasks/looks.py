"""Looks: the verdicts of the log, as the gate counts them."""

from typing import TYPE_CHECKING, Any

from classifier import datasets
from registry import models
from registry.log import Event
from registry.models import Models

if TYPE_CHECKING:
    from classifier.evaluation.ledger import Look


def asked(dataset: str, rule: str, threshold: float | None) -> list[Any]:
    """Return what a verdict rests on beside models and rows: rule and terms of the dataset."""
    declared = datasets.load(dataset)
    return [rule, threshold, declared.metric, declared.max_latency_ratio]


def asked_in(look: Event) -> list[Any]:
    """Return the same of a logged verdict; older ones knew no terms."""
    return [*look.about["asked"], "accuracy", None][:4]


def kept_rows(known: Models) -> dict[str, str]:
    """Return the name of the artifact with the rows of each test set of the looks."""
    return {one["test_set"]: one["rows"] for look in known.looks for one in look.about["test_sets"]}


def looks_of(known: Models) -> list["Look"]:
    """Return the logged verdicts as the ledger takes them."""
    from classifier.evaluation.ledger import Look

    return [
        Look(
            at=at,
            rule=look.about["verdict"]["rule"],
            challenger=models.model_of(look),
            champion=look.about["champion"],
            test_sets=sets_of(look),
            verdict=look.about["verdict"],
        )
        for look, at in zip(known.looks, models.running_times(known.looks), strict=True)
    ]


def sets_of(look: Event) -> frozenset[str]:
    """Return the digests of the test sets of a verdict."""
    return frozenset(one["test_set"] for one in look.about["test_sets"])
