"""Retraining: one run of retrain, from the rows that count to the state in which it ends."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.transactions import transaction

from artifacts.artifact import Artifact
from artifacts.forecast import forecasting
from classifier import datasets
from flows import steps
from flows.parameters import Plan
from registry import models
from registry.models import Models
from reporting.report import Run
from tasks import champion, pace
from tasks.export import export
from tasks.flips import plot_flips
from tasks.judge import Bars, Rule, Training, bars, judge
from tasks.parts import parts_of
from tasks.plot import Grid
from tasks.promote import promote
from tasks.report import report, summarise
from tasks.terms import Term, latency
from tasks.test_sets import OFFICIAL, RECENT, TestSet
from tasks.train import train


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """A run whose rows are known.

    Fields:
        run, plan, seed, grid: what was asked for.
        training: that would run.
        initial: the champion, where the training starts from its weights.
        known: what held before the training.
        done: results of the steps by name; more are added.
    """

    run: Run
    plan: Plan
    seed: int
    grid: Grid
    training: Training
    initial: Artifact | None
    known: Models
    done: steps.Results

    @classmethod
    def of(
        cls,
        run: Run,
        plan: Plan,
        seed: int,
        grid: Grid,
        done: steps.Results,
        *,
        from_champion: bool,
    ) -> "Retraining":
        """Return the run, given the results of the steps up to the manifest.

        Raises:
            InputError: the champion is damaged, takes other images, or cannot be started from.
        """
        known, rows = models.current(plan.dataset), done["manifest"]
        if known.champion is not None:
            champion.check_shape(known.champion.model, rows, plan.dataset)
        initial = champion.to_start_from(plan.dataset, known) if from_champion else None
        weights = done.get("initial-weights")
        asked = steps.train_arguments(plan, seed, rows, initial, weights)
        components = train.key_components(*asked)
        if initial is not None and known.champion is not None:
            components = champion.with_pretrained(components, known.champion)
        return cls(
            run=run,
            plan=plan,
            seed=seed,
            grid=grid,
            training=Training.of(plan.dataset, components),
            initial=initial,
            known=known,
            done=done,
        )

    @property
    def rows(self) -> Artifact:
        """The manifest."""
        return self.done["manifest"]

    @property
    def is_trained(self) -> bool:
        """Whether the model is cached: then it costs nothing, and is only judged."""
        with forecasting() as forecast:
            steps.trained(self.plan, self.seed, self.rows, self.initial, self._weights)
        return forecast.steps[-1].outcome == "cached"

    def train(self, max_seconds: float | None) -> None:
        """Train, evaluate and plot, and count what the training costs, also where it fails.

        Raises:
            BudgetSpentError: the training stopped after `max_seconds`.
        """
        with pace.counting(self.training, self.rows, str(self.run.flow_run_id)) as counted:
            made = steps.fitted(
                self.plan,
                self.seed,
                self.grid,
                self.rows,
                self.initial,
                self._weights,
                max_seconds=max_seconds,
            )
            counted["train"] = made["train"]
        self.done.update(made)

    def unchanged(
        self, why: str, summary: dict[str, Any] | None = None, *, state: str = "Unchanged"
    ) -> State:
        """End without a new model: what a training gives is known, or none is due.

        Args:
            why: in a sentence.
            summary: of the model that the training gives, where it is known.
            state: name of the state.
        """
        about = {"train_seconds": None, "challenger": None, "verdict": None}
        return self._end("unchanged", state, [why], (summary or self._asked) | about)

    def decide(self, rule: Rule, threshold: float | None) -> State:
        """Judge the model that was trained, and put it in use if it passes."""
        model = self.done["train"]
        summary = summarise(self.run, self._asked, self.done)
        if self._before == model.name:
            return self.unchanged("The training gave the champion again.", summary)
        challenged = summary | {"challenger": model.name, "verdict": None}
        if why := self._refusal(model):
            return self._end("refused", "Refused", [why], challenged)
        against = bars(self.known, self.training, model, self.rows, self._test_sets())
        challenged["bar"] = against.champion.model if against.champion else None
        self._score(against)
        sets = self._test_sets(against)
        verdict = judge(
            self.training,
            model,
            self.rows,
            sets,
            against,
            summary,
            rule,
            threshold,
            tuple(model.read_json("model.json")["classes"]),
            self._terms(against, model),
        )
        challenged["verdict"], why = verdict, verdict["why"]
        if not verdict["promote"]:
            return self._end("refused", "Refused", why, challenged)
        self.done["export"] = export(model, self.plan.dataset)
        with transaction():
            promote(
                self.training,
                model,
                self.done["export"],
                self.rows,
                sets,
                self.done["plot"],
                self._weights,
                summary,
                why,
                self.known.champion.number if self.known.champion else None,
                self.run.id,
            )
            return self._end("promoted", "Promoted", why, challenged)

    @property
    def _weights(self) -> Artifact | None:
        return self.done.get("initial-weights")

    @property
    def _asked(self) -> dict[str, Any]:
        return self.plan.about | {"seed": self.seed}

    @property
    def _before(self) -> str | None:
        return self.known.champion.model if self.known.champion else None

    def _refusal(self, model: Artifact) -> str | None:
        """Say why no verdict is asked for, as of now: people may have decided meanwhile."""
        if champion.is_retracted(self.plan.dataset, self.rows):
            return "A batch on which it was trained was retracted meanwhile."
        return models.refusal(models.current(self.plan.dataset), model.name)

    def _score(self, against: Bars) -> None:
        """Score the models that are bars, and draw where the champion's answers differ."""
        for name, promotion in against.items():
            scores = steps.scored(self.plan, champion.intact(promotion.model), self.rows, name)
            self.done.update(scores)
        if before := self.done.get("evaluate-champion"):
            now, parts = self.done["evaluate"], parts_of(self.rows)
            flips = plot_flips(self.rows, parts, now, before, self.grid, self.plan.classes)
            self.done["plot-flips"] = flips

    def _test_sets(self, against: Bars | None = None) -> list[TestSet]:
        """Return the test sets with the evaluations that there are."""
        has = [name for name, _ in against.items()] if against else []
        done, found = self.done, []
        for name, suffix in ((OFFICIAL, ""), (RECENT, "-recent")):
            if f"evaluate{suffix}" in done:
                found.append(
                    TestSet(
                        name=name,
                        challenger=done[f"evaluate{suffix}"],
                        champion=done[f"evaluate-champion{suffix}"] if "champion" in has else None,
                        anchor=done[f"evaluate-anchor{suffix}"] if "anchor" in has else None,
                    )
                )
        return found

    def _terms(self, against: Bars, model: Artifact) -> list[Term]:
        """Return what the dataset asks of the challenger beside its scores."""
        name = self.plan.dataset
        if against.champion is None or datasets.load(name).max_latency_ratio is None:
            return []
        return [latency(name, model, champion.intact(against.champion.model))]

    def _end(
        self,
        outcome: Literal["promoted", "refused", "unchanged"],
        state: str,
        why: list[str],
        summary: dict[str, Any],
    ) -> State:
        about = summary | {
            "outcome": outcome,
            "state": state,
            "champion": summary["challenger"] if outcome == "promoted" else self._before,
            "why": why,
            "recipe_fields": asdict(self.plan.recipe),
        }
        found = report(self.run, about, self.done)
        return Completed(name=state, message=" ".join(why), data=found)
