"""Judge: may the challenger replace the champion? Each question is answered once, and logged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from artifacts.artifact import Artifact
from artifacts.keys import KeyComponents
from artifacts.locks import shared_lock
from classifier import datasets
from registry import log, models, sharing
from registry.models import Models, Promotion
from tasks import champion
from tasks.looks import asked, asked_in, kept_rows, looks_of, sets_of
from tasks.terms import Term
from tasks.test_sets import TestSet, keep_rows, rows_in

if TYPE_CHECKING:
    from classifier.evaluation.gate import Verdict
    from classifier.evaluation.ledger import Look

Rule = Literal["auto", "better", "not-worse", "threshold"]
STANDS_IN = "The champion rests on a retracted batch: the best earlier one stands in for it."


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training, before it has run.

    Fields:
        dataset: its name.
        key: by which the gate knows it; starting weights do not count.
        components: of its cache key.
    """

    dataset: str
    key: str
    components: KeyComponents

    @classmethod
    def of(cls, dataset: str, components: KeyComponents) -> "Training":
        """Return the training with these key components."""
        key = champion.train_key(components, dataset)
        return cls(dataset=dataset, key=key, components=components)


def known_answer(
    known: Models, training: Training, rule: Rule, threshold: float | None
) -> tuple[str, dict[str, Any]] | None:
    """Return why a training needs not run, and what is known of its model; None if it must.

    It is the champion's, was refused against this champion, or its model is blocked. A model that
    passed and was not promoted, as when its run was killed, is promoted with its logged verdict.
    """
    if known.champion and known.champion.about["train_key"] == training.key:
        return "This training gave the champion.", dict(known.champion.about["summary"])
    for look in reversed(known.looks):
        if look.about["train_key"] != training.key:
            continue
        model, summary = models.model_of(look), dict(look.about["summary"])
        if model in known.blocked:
            return f"Its model is blocked: {known.blocked[model]}.", summary
        against = known.champion.model if known.champion else None
        wanted = asked(training.dataset, rule, threshold)
        if look.about["judged_against"] != against or asked_in(look) != wanted:
            continue
        if not look.about["verdict"]["promote"]:
            return "Its model was refused against this champion already.", summary
        if known.champion and look.number < known.champion.number:
            return "Its model was replaced by hand since.", summary
    return None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """What the challenger is compared with.

    Fields:
        champion: the best model that rests on no retracted batch; None: a floor is the bar.
        stands_in: whether that is an earlier model, since the champion rests on such a batch.
        anchor: the champion at the start of the ledger, or the best clean one where that rests on
            a retracted batch; None where it is the champion.
        rows: of each test set, by its digest, the artifact that keeps which rows it has.
    """

    champion: Promotion | None
    stands_in: bool
    anchor: Promotion | None
    rows: Mapping[str, str]

    def items(self) -> list[tuple[str, Promotion]]:
        """Return those that must be scored, by name."""
        both = (("champion", self.champion), ("anchor", self.anchor))
        return [(name, one) for name, one in both if one is not None]


def bars(
    known: Models, training: Training, model: Artifact, manifest: Artifact, sets: Sequence[TestSet]
) -> Bars:
    """Return what the challenger is compared with, given its own evaluations.

    Raises:
        InputError: log, cards or manifests are damaged, or the champion takes other images.
    """
    from classifier.evaluation import ledger

    dataset = training.dataset
    champ = champion.bar(dataset, known)
    if champ is not None and champ is not known.champion and champ.model == model.name:
        champ = None  # it was champion, and is the best that is clean: only a floor is above it
    rows = {one.digest: keep_rows(manifest, one.name) for one in sets}
    current = _current_ledger(known, sets, rows)
    anchor = _anchor(dataset, known, ledger.anchor_of(current)) if champ else None
    if anchor is not None and champ is not None and anchor.model == champ.model:
        anchor = None
    stands_in = champ is not None and champ is not known.champion
    return Bars(champion=champ, stands_in=stands_in, anchor=anchor, rows=rows)


def _next_look(known: Models, sets: Sequence[TestSet], rows: Mapping[str, str]) -> int:
    from classifier.evaluation import ledger

    return ledger.next_look(_current_ledger(known, sets, rows))


def _current_ledger(
    known: Models, sets: Sequence[TestSet], rows: Mapping[str, str]
) -> list["Look"]:
    from classifier.evaluation import ledger

    today = frozenset(one.digest for one in sets)
    kept = {digest: rows_in(name) for digest, name in {**kept_rows(known), **rows}.items()}
    return ledger.current_ledger(looks_of(known), datetime.now(UTC), today, kept)


def _anchor(dataset: str, known: Models, name: str | None) -> Promotion | None:
    found = known.promotion_of(name) if name else None
    if found is None or champion.clean(dataset, found):
        return found
    return champion.best_clean(dataset, known)


@task(name="compare", cache_policy=NO_CACHE, persist_result=False)
def judge(
    training: Training,
    model: Artifact,
    manifest: Artifact,
    sets: list[TestSet],
    against: Bars,
    summary: dict[str, Any],
    rule: Rule,
    threshold: float | None,
    names: tuple[str, ...],
    terms: list[Term],
) -> dict[str, Any]:
    """Return the verdict, JSON-ready; a question that was answered before keeps its answer.

    Args:
        training: that gave the challenger.
        model: the challenger.
        manifest: which rows there are.
        sets: with the evaluations of all bars.
        against: the bars.
        summary: of the run, for the log.
        rule: which it must satisfy; auto: what changed decides.
        threshold: least value of the metric, with the rule threshold.
        names: of the classes.
        terms: of the dataset beside the scores; all must hold.

    Raises:
        InputError: log or predictions are damaged.
    """
    with shared_lock(f"look/{training.dataset}"):  # so that two looks do not take one number
        sharing.expire()
        known = models.current(training.dataset)
        champ = against.champion
        name = champ.model if champ else None
        wanted = asked(training.dataset, rule, threshold)
        question = (model.name, name, frozenset(one.digest for one in sets))
        for earlier in known.looks:
            same = (
                models.model_of(earlier),
                earlier.about["champion"],
                sets_of(earlier),
            ) == question
            if same and asked_in(earlier) == wanted:
                return {**earlier.about["verdict"], "changed": earlier.about["changed"]}
        look = _next_look(known, sets, against.rows)
        found, changed = _verdict(training, manifest, sets, against, look, rule, threshold, names)
        found = _with_terms(found, terms)
        log.append(
            "look",
            training.dataset,
            challenger=model.name,
            champion=name,
            judged_against=known.champion.model if known.champion else None,
            train_key=training.key,
            asked=wanted,
            test_sets=[
                {"test_set": one.digest, "rows": against.rows[one.digest], "name": one.name}
                for one in sets
            ],
            changed=changed,
            verdict=found.json(),
            summary=summary,
        )
        for sentence in found.why:
            get_run_logger().info("%s", sentence)
        return {**found.json(), "changed": changed}


def _with_terms(found: "Verdict", terms: Sequence[Term]) -> "Verdict":
    promote = found.promote and all(holds for holds, _ in terms)
    said = found.why if found.promote == promote else []
    why = [*said, *(sentence for holds, sentence in terms if holds == promote)]
    return replace(found, promote=promote, why=why)


def _verdict(
    training: Training,
    manifest: Artifact,
    sets: Sequence[TestSet],
    against: Bars,
    look: int,
    rule: Rule,
    threshold: float | None,
    names: tuple[str, ...],
) -> tuple["Verdict", list[str]]:
    from classifier.evaluation import gate, ledger

    champ = against.champion
    changed: set[str] = set()
    chosen: ledger.Rule = "not-worse" if rule == "auto" else rule
    reason = ""
    if champ is not None:
        changed = champion.changed(champion.components(champ), training.components)
        if rule == "auto":
            chosen, reason = gate.auto_rule(changed)
    if against.stands_in:
        reason = f"{STANDS_IN} {reason}".rstrip()
    scored = [one.scored(manifest) for one in sets]
    found = gate.verdict(
        scored[0],
        scored[1] if len(scored) > 1 else None,
        rule=chosen,
        classes=names,
        metric=datasets.load(training.dataset).metric,
        look=look,
        champion_classes=_classes(champ),
        anchor_classes=_classes(against.anchor),
        threshold=threshold,
        reason=reason,
    )
    return found, sorted(changed)


def _classes(promotion: Promotion | None) -> int | None:
    if promotion is None:
        return None
    return len(champion.intact(promotion.model).read_json("model.json")["classes"])


def check_rule(rule: Rule, threshold: float | None) -> None:
    """Check before anything runs that rule and threshold fit.

    Raises:
        ArgumentError: they do not.
    """
    from classifier.errors import ArgumentError

    if (rule == "threshold") != (threshold is not None):
        raise ArgumentError("--rule threshold and --threshold go together: give both, or neither.")
