"""Retraining: what is promoted, what is refused, and the way back. A story of real digits."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from artifacts import layout
from registry import models, pointer
from tasks.judge import STANDS_IN
from tests.conftest import PROJECT
from tests.flows import pictures
from tests.flows.digits import QUICK, TEST, TRAIN, Root, digits, new

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path, source, server):
    with pictures.data_root(tmp_path / "data", source) as there:
        yield Root(there.folder)


@pytest.fixture(scope="module")
def story(tmp_path_factory, source, server):
    told = SimpleNamespace()
    folder = tmp_path_factory.mktemp("story") / "data"
    with pictures.data_root(folder, source) as there:
        root = told.root = Root(there.folder)
        told.first = root.retrain()
        told.nothing_new = root.retrain()
        root.add("good", *new(0, 20))
        told.good = root.retrain()
        images, labels = new(20, 150)
        root.add("poisoned", images, (labels + 1) % 10)
        told.caught = root.retrain(code=1)
        told.caught_without_json = root("retrain", "--dataset", "folder", *QUICK)
        root.data("accept", "poisoned", "--why", "to see the gate refuse it")
        told.poisoned = root.retrain()
        told.poisoned_again = root.retrain()
        told.after_poison = root.status()
        root.data("retract", "poisoned", "--why", "wrong labels")
        told.retracted = root.retrain()
        root.add("better", *new(150, 170))
        told.better = root.retrain()
        bad = told.poisoned["challenger"]
        told.unforced = root("models", "promote", bad, "--why", "x", "--dataset", "folder")
        told.forced = root.models("promote", bad, "--why", "a demonstration", "--force")
        told.after_force = root.status()
        told.listed_after_force = root.models("list")
        told.rollback = root.models("rollback", "--why", "it reads nothing")
        told.after_rollback = root.status()
        told.next = root.retrain()
        told.verified = root("models", "list", "--verify", "--dataset", "folder")
        told.shown = root.models("show")
        told.budget = root.json("gate", "budget")
        told.events = root.events()
    return told


def test_the_first_model_is_promoted_over_the_floor(story):
    assert story.first["outcome"] == "promoted"
    assert story.first["verdict"]["rule"] == "floor"
    assert story.first["champion"] == story.first["challenger"]
    assert story.first["champion"].startswith("models/")
    assert story.first["model"].endswith(story.first["challenger"].removeprefix("models/"))


def test_nothing_new_is_unchanged_and_trains_nothing(story):
    assert story.nothing_new["outcome"] == "unchanged"
    assert story.nothing_new["champion"] == story.first["champion"]
    assert story.nothing_new["challenger"] is None
    assert story.nothing_new["verdict"] is None
    assert story.nothing_new["test_accuracy"] == story.first["test_accuracy"]
    assert set(story.nothing_new["steps"]) == {"download", "normalise", "manifest"}
    assert set(story.nothing_new["steps"].values()) == {"cached"}


def test_a_good_batch_must_be_no_worse_and_is_promoted(story):
    assert story.good["outcome"] == "promoted"
    assert story.good["verdict"]["rule"] == "not-worse"
    assert story.good["verdict"]["changed"] == ["data"]
    assert "Data changed" in story.good["verdict"]["why"][0]
    assert story.good["champion"] == story.good["challenger"] != story.first["champion"]
    assert {"evaluate-champion", "export"} <= story.good["steps"].keys()


def test_a_poisoned_batch_is_caught_by_the_check(story):
    assert story.caught["outcome"] == "broken"
    assert "train" not in story.caught["steps"]
    assert story.caught_without_json.code == 1
    assert "Batch poisoned of folder is broken" in story.caught_without_json.err


def test_forced_through_the_check_it_is_refused_by_the_gate_and_the_champion_stays(story):
    assert story.poisoned["outcome"] == "refused"
    assert story.poisoned["verdict"]["promote"] is False
    assert story.poisoned["champion"] == story.good["champion"]
    assert any("newly wrong" in sentence for sentence in story.poisoned["verdict"]["why"])
    assert story.after_poison[story.poisoned["challenger"]] == "refused"
    assert story.after_poison[story.good["champion"]] == "champion"
    assert story.after_poison[story.first["champion"]] == "former"


def test_a_question_is_asked_once(story):
    assert story.poisoned_again["outcome"] == "unchanged"
    judged = [models.model_of(SimpleNamespace(**look)) for look in story.root.looks()]
    assert len(judged) == len(set(judged))


def test_after_the_retraction_the_champion_is_what_its_training_gives(story):
    assert story.retracted["outcome"] == "unchanged"
    assert story.retracted["champion"] == story.good["champion"]


def test_the_next_good_batch_is_promoted(story):
    assert story.better["outcome"] == "promoted"
    assert [batch["name"] for batch in story.better["batches"]] == ["good", "better"]


def test_a_refused_model_is_promoted_by_force_alone_and_the_log_says_so(story):
    assert story.unforced.code == 1
    assert "--force" in story.unforced.err
    assert story.forced["champion"] == story.poisoned["challenger"]
    (event,) = [e for e in story.events if e["kind"] == "promote" and e["about"]["forced"]]
    assert event["about"]["why"] == "a demonstration"
    assert event["about"]["who"]
    (why,) = (row["why"] for row in story.listed_after_force if row["status"] == "champion")
    assert why == "forced: a demonstration"


def test_a_rollback_goes_to_the_champion_of_before_and_blocks_what_it_leaves(story):
    assert story.rollback["champion"] == story.better["champion"]
    assert story.after_rollback[story.better["champion"]] == "champion"
    assert story.after_rollback[story.poisoned["challenger"]] == "blocked"
    assert story.next["outcome"] == "unchanged"
    assert story.next["champion"] == story.better["champion"]


def test_everything_kept_verifies_and_the_champion_is_shown_with_its_files(story):
    assert story.verified.code == 0
    assert story.shown["model"] == story.better["champion"]
    assert story.shown["status"] == "champion"
    program = torch.export.load(story.shown["export"]).module()
    images, labels = digits()
    rows = slice(TRAIN, TRAIN + TEST)
    found = program(torch.from_numpy(images[rows].astype(np.float32) / 255)).argmax(1).numpy()
    assert (found != labels[rows]).sum() == story.better["errors"]
    card = Path(story.shown["card"]).read_text(encoding="utf-8")
    assert f"{100 * story.better['test_accuracy']:.2f} %" in card
    assert "| good |" in card


def test_the_budget_counts_the_looks(story):
    assert story.budget["looks_used"] == 0  # no recipe claimed to be better
    assert story.budget["verdicts"] == len(story.root.looks())
    assert story.budget["next_alpha"] == 0.025


def test_the_log_says_which_code_a_promotion_came_from(story):
    promotions = [e["about"] for e in story.events if e["kind"] == "promote"]
    assert all(len(about["commit"] or "0" * 40) == 40 for about in promotions)
    assert all(len(about["lock"]) == 64 for about in promotions)


def test_the_report_says_what_was_decided(story):
    page = (story.root.folder / story.poisoned["report"] / "report.html").read_text()
    assert "Refused" in page
    assert "newly wrong" in page


# Single faults.


def test_a_frozen_champion_stays_and_the_same_model_is_judged_after_the_thaw(root, first, good):
    root.models("freeze", "--why", "holidays")
    frozen = root.retrain()
    assert frozen["outcome"] == "refused"
    assert frozen["why"] == ["Promotion is frozen: holidays."]
    assert frozen["champion"] == first["champion"]
    root.models("thaw", "--why", "back")
    assert root.retrain()["outcome"] == "promoted"


def test_the_best_clean_model_is_the_bar_where_the_champion_rests_on_a_retracted_batch(root, first):
    images, labels = new(20, 150)
    root.add("poisoned", images, (labels + 1) % 10)
    root.data("accept", "poisoned", "--why", "x")
    refused = root.retrain()
    root.models("promote", refused["challenger"], "--why", "x", "--force")
    root.data("retract", "poisoned", "--why", "wrong labels")
    back = root.retrain()
    assert back["outcome"] == "promoted"
    assert back["champion"] == first["champion"]
    assert root("models", "rollback", "--why", "x", "--dataset", "folder").code in {0, 1}


def test_an_earlier_champion_that_stands_in_is_called_so(root):
    first = root.retrain()
    images, labels = new(20, 150)
    root.add("poisoned", images, (labels + 1) % 10)
    root.data("accept", "poisoned", "--why", "x")
    refused = root.retrain()
    root.models("promote", refused["challenger"], "--why", "x", "--force")
    root.data("retract", "poisoned", "--why", "wrong labels")
    root.add("good", *new(0, 20))
    judged = root.retrain()
    assert judged["bar"] == first["champion"]
    assert judged["why"][0].startswith(STANDS_IN)
    page = (root.folder / "reports" / judged["run_id"] / "report.html").read_text()
    assert "<div>Earlier champion</div>" in page
    assert "<div>Champion</div>" not in page
    assert "<div>Champion before</div>" not in page


def test_what_people_decide_during_a_training_counts(root, first, good, monkeypatch):
    """A batch that is retracted then, and a promotion that is frozen."""
    from flows import steps

    real = steps.fitted

    def meanwhile(*decision):
        def fitted(*arguments, **options):
            done = real(*arguments, **options)
            assert root(*decision, "--dataset", "folder", "--why", "now").code == 0
            return done

        return fitted

    with monkeypatch.context() as patch:
        patch.setattr(steps, "fitted", meanwhile("models", "freeze"))
        frozen = root.retrain()
    assert (frozen["outcome"], frozen["champion"]) == ("refused", first["champion"])
    root.models("thaw", "--why", "now")
    with monkeypatch.context() as patch:
        patch.setattr(steps, "fitted", meanwhile("data", "retract", "good"))
        retracted = root.retrain()
    assert (retracted["outcome"], retracted["champion"]) == ("refused", first["champion"])
    assert retracted["why"] == ["A batch on which it was trained was retracted meanwhile."]


def test_what_people_replaced_by_hand_does_not_return_by_an_older_verdict(root, first, good):
    second = root.retrain()
    assert second["outcome"] == "promoted"
    root.models("promote", first["champion"], "--why", "it misbehaves", "--force")
    after = root.retrain()
    assert (after["outcome"], after["champion"]) == ("unchanged", first["champion"])
    root.data("retract", "good", "--why", "wrong")
    done = root("models", "promote", second["champion"], "--why", "x", "--dataset", "folder")
    assert done.code == 1
    assert "rests on a batch that was retracted" in done.err
    done = root("models", "rollback", "--why", "x", "--dataset", "folder")
    assert done.code == 1
    assert "rests on a batch that was retracted" in done.err
    shutil.rmtree(root.folder / "cache")
    assert root.data("show", "good")["champions"] == [second["champion"]]


def test_a_threshold_that_was_missed_answers_for_no_other_rule(root):
    assert root.retrain("--rule", "threshold", "--threshold", "0.999")["outcome"] == "refused"
    assert root.retrain("--rule", "threshold", "--threshold", "0.999")["outcome"] == "unchanged"
    assert root.retrain()["outcome"] == "promoted"


def test_starting_from_the_champion_is_the_same_question(root, first):
    assert root.retrain("--from", "champion")["outcome"] == "unchanged"
    root.add("good", *new(0, 20))
    warm = root.retrain("--from", "champion")
    assert warm["challenger"] != first["champion"]
    manifest = root.report(warm)["timeline"]
    assert [step["step"] for step in manifest].count("train") == 1


def test_without_a_champion_there_is_nothing_to_start_from(root):
    done = root("retrain", "--from", "champion", "--dataset", "folder")
    assert done.code == 1
    assert "has no champion yet: `./run retrain --dataset folder`" in done.err


def test_a_run_that_fails_after_the_promotion_leaves_the_champion_of_before(
    root, first, good, monkeypatch
):
    with monkeypatch.context() as patch:
        from reporting.report import Run

        real = Run.report

        def fails(self, summary, *arguments, **options):
            if summary.get("outcome") == "promoted":
                raise OSError("the disk is gone")
            return real(self, summary, *arguments, **options)

        patch.setattr(Run, "report", fails)
        done = root("retrain", "--dataset", "folder", *QUICK)
    assert done.code == 1
    assert models.current("folder").champion.model == first["champion"]
    assert root.events()[-1]["kind"] == "undo"
    assert root("models", "list", "--verify", "--dataset", "folder").code == 0


KILLED = """
import os, signal, sys
from registry import {module}
real = {module}.{name}
def last(*arguments, **options):
    if {early}:
        os.kill(os.getpid(), signal.SIGKILL)
    made = real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = last
from flows.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("module", "name", "early", "promoted"),
    [
        ("decisions", "promote", True, False),
        ("pointer", "write", True, False),
        ("pointer", "write", False, True),
    ],
)
def test_a_kill_during_a_promotion_leaves_a_complete_champion(
    root, first, good, server, module, name, early, promoted
):
    done = subprocess.run(
        [
            *(sys.executable, "-c", KILLED.format(module=module, name=name, early=early)),
            *("retrain", "--dataset", "folder", *QUICK),
        ],
        cwd=PROJECT,
        env=os.environ | {"PREFECT_API_URL": server},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    live = models.current("folder").champion.model
    assert (live != first["champion"]) == promoted
    assert root("models", "list", "--verify", "--dataset", "folder").code == 0
    after = root.retrain()
    assert after["outcome"] == ("unchanged" if promoted else "promoted")
    assert after["champion"] != first["champion"]


def test_the_champion_survives_the_loss_of_the_cache(root, first):
    shutil.rmtree(root.folder / "cache")
    assert root("models", "list", "--verify", "--dataset", "folder").code == 0
    again = root.retrain()
    assert again["outcome"] == "unchanged"
    assert again["champion"] == first["champion"]


def test_a_damaged_champion_is_a_sentence_and_nothing_replaces_it(root, first, good):
    weights = layout.permanent() / first["champion"] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    done = root("retrain", "--dataset", "folder", *QUICK)
    assert done.code == 1
    assert "cannot be used (weights.safetensors has changed): restore it" in done.err
    assert models.current("folder").champion.model == first["champion"]
    assert root("models", "list", "--verify", "--dataset", "folder").code == 1
    pointer.path_of("folder").write_text("{")
    done = root("retrain", "--dataset", "folder", *QUICK)
    assert done.code == 1
    assert "does not say which model is in use" in done.err


def test_rule_and_threshold_go_together(root):
    for options in (("--rule", "threshold"), ("--threshold", "0.5")):
        done = root("retrain", "--dataset", "folder", *options)
        assert done.code == 2
        assert "go together" in done.err
    refused = root.retrain("--rule", "threshold", "--threshold", "0.999")
    assert refused["outcome"] == "refused"
    assert refused["champion"] is None
    assert json.dumps(refused["verdict"]["why"])
