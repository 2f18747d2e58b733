"""What is known of the models of a dataset: for people, and for programs that load them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from artifacts import keys, layout, records
from artifacts.artifact import find_damage
from artifacts.errors import InputError
from artifacts.keys import KeyComponents
from registry import models
from registry.models import Models, Promotion
from tasks import champion


def listed(dataset: str) -> list[dict[str, Any]]:
    """Return every model that was judged or promoted, JSON-ready, the newest first."""
    known = models.current(dataset)
    found: dict[str, dict[str, Any]] = {}
    for look in known.looks:
        name = models.model_of(look)
        found[name] = _line(known, name, look.at, look.about["summary"], look.about["verdict"])
    for one in known.history:
        verdict = found.get(one.model, {}).get("verdict")
        found.pop(one.model, None)  # so that the order is that of the last event
        found[one.model] = _line(known, one.model, one.at, one.about["summary"], verdict) | {
            "why": known.blocked.get(one.model) or _said(one)
        }
    return list(reversed(found.values()))


def frozen(dataset: str) -> str | None:
    """Return why nothing is promoted at present; None when promotion is open."""
    return models.current(dataset).frozen


def _said(one: Promotion) -> str:
    return f"{'forced: ' if one.about['forced'] else ''}{one.about['why']}"


def _line(
    known: Models,
    model: str,
    at: str,
    summary: Mapping[str, Any],
    verdict: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "model": model,
        "status": known.status(model),
        "test_accuracy": summary.get("test_accuracy"),
        "recent_accuracy": summary.get("recent_accuracy"),
        "recipe": summary.get("recipe"),
        "at": at,
        "why": known.blocked.get(model) or " ".join((verdict or {}).get("why", [])),
        "verdict": verdict,
    }


def verified(dataset: str) -> list[dict[str, str]]:
    """Return what is missing or damaged of the models that were champions."""
    found: dict[str, str | None] = {}
    for one in models.current(dataset).history:
        for name in (one.model, *(str(one.about[part]) for part in models.KEPT)):
            folder = layout.permanent() / name
            what = layout.relative(folder)
            if what not in found:
                found[what] = find_damage(models.artifact_of(name), folder=folder, thorough=True)
    return [{"what": what, "problem": damage} for what, damage in found.items() if damage]


def show(dataset: str, name: str | None, at: datetime | None) -> dict[str, Any]:
    """Return all that is known of one model, JSON-ready.

    Args:
        dataset: its name.
        name: of the model; None for the champion.
        at: the champion of that time, with a time zone; None for today's.

    Raises:
        ArgumentError: there is no such model.
        InputError: there is no champion, or its files are missing or damaged.
    """
    known = models.current(dataset)
    one = known.champion if at is None else known.live_at(at)
    if name is None and one is None and at is not None and known.history:
        first = known.history[0].at
        raise InputError(f"{dataset} had no champion then: the first came on {first}.")
    if name is None and one is None:
        raise champion.no_champion(dataset)
    model = known.find(name) if name is not None else str(one and one.model)
    (line,) = (row for row in listed(dataset) if row["model"] == model)
    promotion = known.promotion_of(model)
    looks = [look for look in known.looks if models.model_of(look) == model]
    return line | {
        "promotions": [_promotion(one) for one in known.history if one.model == model],
        "looks": [{"at": look.at, **look.about["verdict"]} for look in looks],
        **({} if promotion is None else _files(promotion)),
    }


def _promotion(one: Promotion) -> dict[str, Any]:
    names = ("why", "forced", "run", "commit", "dirty", "lock")
    return {"at": one.at, "event": one.number, "rollback": one.rolled_back} | {
        name: one.about.get(name) for name in names
    }


def _files(one: Promotion) -> dict[str, Any]:
    """Return where the files of a champion lie, and its card."""
    card = champion.intact(str(one.about["card"])).read_json("card.json")

    def place(name: str, file: str = "") -> str:
        champion.intact(name)
        return str(layout.permanent() / name / file)

    return {
        "folder": place(one.model),
        "export": place(str(one.about["export"]), "model.pt2"),
        "card": place(str(one.about["card"]), "card.md"),
        "manifest": str(one.about["manifest"]),
        "scores": card["scores"],
        "classes": card["classes"],
    }


def differ(dataset: str, first: str, second: str) -> dict[str, Any]:
    """Return how two models differ: in their scores, and in what they were made of.

    Raises:
        ArgumentError: there is no such model.
    """
    known = models.current(dataset)
    names = [known.find(name) for name in (first, second)]
    by_name = {row["model"]: row for row in listed(dataset)}
    old, new = (components_of(dataset, known, name) for name in names)
    return {
        "models": names,
        "test_accuracy": [by_name[name]["test_accuracy"] for name in names],
        "recent_accuracy": [by_name[name]["recent_accuracy"] for name in names],
        "differences": keys.differences(old, new) if old and new else None,
    }


def components_of(dataset: str, known: Models, name: str) -> KeyComponents:
    """Return what a model was made of; nothing where neither card nor cache says it."""
    if promotion := known.promotion_of(name):
        return champion.components(promotion)
    for record in records.everything(f"train/{dataset}"):
        if record.artifact.name == name:
            return record.components()
    return {}
