"""What people decide about models: promote, roll back, block, freeze, thaw."""

import getpass
import os
from collections.abc import Mapping
from typing import Any

from artifacts import artifact, keys, records
from artifacts.artifact import Artifact, find_damage
from artifacts.errors import ArgumentError, InputError
from registry import decisions, log, models
from registry.models import Models, Promotion, artifact_of
from tasks import champion, model_card
from tasks.judge import Training
from tasks.promote import provenance
from tasks.test_sets import OFFICIAL, RECENT, TestSet

#: Steps whose records are the evaluations of a test set.
STEPS = {OFFICIAL: "evaluate", RECENT: "evaluate-recent"}


def promote(dataset: str, name: str, why: str, *, force: bool) -> dict[str, Any]:
    """Put a model in use by hand, and return what was replaced.

    Raises:
        ArgumentError: there is no such model, it is the champion, or there is no reason.
        InputError: the gate did not let it pass, it is blocked, or promotion is frozen, and it is
            not forced; or its files are gone.
    """
    log.check_reason(why)
    known = models.current(dataset)
    model = known.find(name)
    before = known.champion
    if before and before.model == model:
        raise ArgumentError(f"{artifact_of(model)} is the champion of {dataset} already.")
    if not force and (refusal := _refusal(known, model)):
        raise InputError(f"{refusal} `--force` promotes it all the same, and the log says so.")
    about = _about(dataset, known, model)
    if not force and champion.is_retracted(dataset, artifact_of(about["manifest"])):
        raise InputError(
            f"{artifact_of(model)} rests on a batch that was retracted. `--force` promotes it "
            "all the same, and the log says so."
        )
    decisions.promote(
        dataset,
        model,
        expected=before.number if before else None,
        **about,
        **_by_hand(why, forced=force),
    )
    return {"champion": model, "before": before.model if before else None}


def _refusal(known: Models, model: str) -> str | None:
    """Say why a model must not be promoted without force."""
    if closed := models.refusal(known, model):
        return closed
    live = known.champion.model if known.champion else None
    for look in reversed(known.looks):
        if models.model_of(look) == model and look.about["judged_against"] == live:
            if look.about["verdict"]["promote"]:
                return None
            return f"{artifact_of(model)} was refused: {' '.join(look.about['verdict']['why'])}"
    return f"{artifact_of(model)} was not judged against the present champion."


def _about(dataset: str, known: Models, model: str) -> dict[str, Any]:
    """Return card, export, manifest and summary of a model, all in place."""
    if there := known.promotion_of(model):
        return _kept(there)
    looks = [look for look in known.looks if models.model_of(look) == model]
    summary = dict(looks[-1].about["summary"])
    made = next(
        (r for r in records.everything(f"train/{dataset}") if r.artifact.name == model), None
    )
    if made is None or find_damage(made.artifact):
        raise InputError(f"The files of {artifact_of(model)} are gone: train it again.")
    training = Training.of(dataset, made.components())
    manifest = _found(dataset, "manifest", keys.inputs(made.components())["manifest"])
    sets = [
        TestSet(name=name, challenger=found)
        for name, step in STEPS.items()
        if (found := _evaluation(dataset, step, made.artifact, manifest))
    ]
    if not sets:
        raise InputError(f"The scores of {artifact_of(model)} are gone: train it again.")
    card = model_card.write(training, made.artifact, manifest, sets, None, summary, ["By hand."])
    export = _export(made.artifact)
    for each in (manifest, made.artifact):
        artifact.keep(each)
    return {
        "card": card.name,
        "export": export.name,
        "manifest": manifest.name,
        "train_key": training.key,
        "summary": summary,
    }


def _kept(there: Promotion) -> dict[str, Any]:
    names = ("card", "export", "manifest", "train_key", "summary")
    for name in (there.model, *(str(there.about[part]) for part in models.KEPT)):
        champion.intact(name)
    return {name: there.about[name] for name in names}


def _found(dataset: str, step: str, digest: str) -> Artifact:
    for record in records.everything(f"{step}/{dataset}"):
        if record.artifact.digest == digest and not find_damage(record.artifact):
            return record.artifact
    raise InputError(f"The {step} {digest[:8]} is gone: train again.")


def _evaluation(dataset: str, step: str, model: Artifact, manifest: Artifact) -> Artifact | None:
    wanted = {"model": model.digest, "manifest": manifest.digest}
    for record in records.everything(f"{step}/{dataset}"):
        inputs = keys.inputs(record.components())
        if wanted.items() <= inputs.items() and not find_damage(record.artifact):
            return record.artifact
    return None


def _export(model: Artifact) -> Artifact:
    from classifier import exports
    from classifier import models as files

    with artifact.draft("exports", permanent=True) as new:
        exports.write(new.folder, files.load(model.path))
    return new.artifact


def rollback(dataset: str, why: str, *, force: bool) -> dict[str, Any]:
    """Put the champion of before back in use, and block the one that it replaces.

    Raises:
        ArgumentError: there is no reason.
        InputError: there is none of before, its files are damaged, or it does not score what its
            card says and this is not forced.
    """
    log.check_reason(why)
    known = models.current(dataset)
    if known.champion is None:
        raise champion.no_champion(dataset)
    target = known.previous
    if target is None:
        raise InputError(f"{dataset} has no earlier champion to which it could go back.")
    kept = _kept(target)
    if not force:
        if not champion.clean(dataset, target):
            raise InputError(
                f"{artifact_of(target.model)}, the champion of before, rests on a batch that "
                "was retracted: `./run retrain` makes a new one. `--force` goes back all the same."
            )
        check_scores(target)
    decisions.rollback(
        dataset,
        target.model,
        expected=known.champion.number,
        left=known.champion.model,
        **kept,
        **_by_hand(why, forced=force),
    )
    return {"champion": target.model, "blocked": known.champion.model}


def check_scores(target: Promotion) -> None:
    """Load a champion, and check that it scores what its card says.

    Raises:
        InputError: it does not, or its test rows are gone.
    """
    from tasks.evaluate import scores

    card = champion.intact(str(target.about["card"])).read_json("card.json")
    said = next(score for score in card["scores"] if score["name"] == OFFICIAL)
    model, manifest = champion.intact(target.model), champion.intact(str(target.about["manifest"]))
    try:
        _, _, found = scores(model, manifest, "test", "cpu")
    except InputError as error:
        raise InputError(
            f"Whether {artifact_of(target.model)} still scores what its card says cannot be "
            f"checked: {error} `--force` goes back without it."
        ) from error
    if found["test_set"] != said["test_set"] or found["errors"] != said["errors"]:
        raise InputError(
            f"{artifact_of(target.model)} makes {found['errors']} errors, and its card says "
            f"{said['errors']}: the champion stays. `--force` goes back all the same."
        )


def block(dataset: str, name: str, why: str) -> dict[str, Any]:
    """Let a model never be promoted.

    Raises:
        ArgumentError: there is no such model, it is the champion, or there is no reason.
    """
    known = models.current(dataset)
    model = known.find(name)
    if known.champion and known.champion.model == model:
        raise ArgumentError(f"{artifact_of(model)} is the champion: roll back, which blocks it.")
    decisions.decide("block", dataset, why, model=model, **_who())
    return {"blocked": model}


def freeze(dataset: str, why: str) -> dict[str, Any]:
    """Promote nothing until `thaw`."""
    decisions.decide("freeze", dataset, why, **_who())
    return {"frozen": why}


def thaw(dataset: str, why: str) -> dict[str, Any]:
    """Promote again.

    Raises:
        ArgumentError: promotion is not frozen, or there is no reason.
    """
    if models.current(dataset).frozen is None:
        raise ArgumentError(f"Promotion of {dataset} is not frozen.")
    decisions.decide("thaw", dataset, why, **_who())
    return {"frozen": None}


def _by_hand(why: str, *, forced: bool) -> Mapping[str, Any]:
    return {"why": why, "forced": forced, "run": None, **_who(), **provenance()}


def _who() -> dict[str, str]:
    try:
        return {"who": getpass.getuser()}
    except (OSError, KeyError):  # no name for this user, as in some containers
        return {"who": str(os.getuid())}
