"""Promote: the challenger becomes the champion, with everything that it will be asked for later."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.transactions import Transaction, get_transaction

from artifacts import artifact, files
from artifacts.artifact import Artifact
from registry import decisions
from tasks import model_card
from tasks.judge import Training
from tasks.test_sets import TestSet

PROJECT = Path(__file__).resolve().parent.parent
LOCK = PROJECT / "requirements.txt"


@task(name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote(
    training: Training,
    model: Artifact,
    export: Artifact,
    manifest: Artifact,
    sets: list[TestSet],
    pictures: Artifact | None,
    weights: Artifact | None,
    summary: Mapping[str, Any],
    why: Sequence[str],
    expected: int | None,
    run: str,
) -> None:
    """Keep the model with its export, manifest and card, and point to it.

    If the transaction in which this runs fails, the pointer goes back.

    Args:
        training: that gave the model.
        model: to be promoted.
        export: of it.
        manifest: on which it was trained.
        sets: the test sets with its evaluations.
        pictures: what `plot` drew of it.
        weights: the initial ones that the dataset declares.
        summary: figures of the run.
        why: sentences of the verdict.
        expected: number of the promotion that counted when it was judged.
        run: that promotes it.

    Raises:
        ChampionChangedError: another promotion came first.
        InputError: the data root cannot be written.
    """
    card = model_card.write(training, model, manifest, sets, pictures, summary, why)
    for each in (manifest, export, model, *([weights] if weights else [])):
        artifact.keep(each)
    event = decisions.promote(
        training.dataset,
        model.name,
        expected=expected,
        card=card.name,
        export=export.name,
        manifest=manifest.name,
        train_key=training.key,
        summary=dict(summary),
        why=" ".join(why),
        forced=False,
        run=run,
        who=None,
        **provenance(),
    )
    get_run_logger().info("%s is the champion of %s", model, training.dataset)
    if transaction := get_transaction():
        transaction.set("promotion", (training.dataset, event))


@promote.on_rollback
def take_back(transaction: Transaction) -> None:
    """Point to the champion of before: the run failed after the promotion."""
    if found := transaction.get("promotion", default=None):
        decisions.undo(*found)


def provenance() -> dict[str, Any]:
    """Return the commit of the project, whether its files differ from it, and its lock's digest."""

    def git(*words: str) -> str | None:
        done = subprocess.run(
            ["git", *words],  # noqa: S607
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except OSError:  # there is no git
        commit = changes = None
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "lock": files.sha256(LOCK) if LOCK.exists() else None,
    }
