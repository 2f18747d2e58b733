"""A dataset's own terms: a model that breaks them is not promoted, however good its scores."""

import io
import json
import os
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch
from torch import nn

from artifacts.files import content_digest, file_stats
from classifier import datasets
from tests.flows import pictures
from tests.flows.digits import Root

pytestmark = pytest.mark.slow


def wide(shape, classes):
    """A network whose hidden layers take far longer than those of the post."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape[0] * shape[1], 2048),
        nn.ReLU(),
        nn.Linear(2048, 2048),
        nn.ReLU(),
        nn.Linear(2048, classes),
    )


@pytest.fixture
def declare(monkeypatch):
    """Change what the dataset `folder` declares."""
    declared, path = datasets.declared()["folder"]

    def change(**fields):
        entry = (replace(declared, networks={"wide": wide}, **fields), path)
        monkeypatch.setitem(datasets.declared(), "folder", entry)

    change()
    return change


@pytest.fixture
def root(tmp_path, source, server):
    with pictures.data_root(tmp_path / "data", source) as there:
        yield Root(there.folder)


WIDE = (
    *("--recipe", "mlp", "--network", "wide", "--epochs", "6"),
    *("--learning-rate", "1e-3", "--batch", "50"),
)
THRESHOLD = ("--rule", "threshold", "--threshold", "0.5")


def test_a_more_accurate_model_that_is_slower_than_allowed_is_refused_by_name(root, declare):
    small = root.json("retrain", "--recipe", "post", "--learning-rate", "0.3", "--epochs", "30")
    declare(max_latency_ratio=1.5)
    wider = root.json("retrain", *WIDE, *THRESHOLD)
    assert wider["test_accuracy"] > small["test_accuracy"]
    assert wider["outcome"] == "refused"
    assert wider["champion"] == small["champion"]
    (why,) = (each for each in wider["verdict"]["why"] if each.startswith("One image takes "))
    assert why.endswith("times as long as with the champion, against 1.5 at most.")
    assert float(why.split()[3]) > 1.5
    again = root.json("retrain", *WIDE, *THRESHOLD)
    assert again["outcome"] == "unchanged"
    declare(max_latency_ratio=1000)  # another question
    allowed = root.json("retrain", *WIDE, *THRESHOLD)
    assert allowed["steps"]["train"] == "cached"
    passed = allowed["outcome"] == "promoted"
    assert any("against 1000 at most" in each for each in allowed["verdict"]["why"]) == passed


def test_a_network_with_too_many_parameters_is_refused_before_it_is_trained(root, declare):
    declare(max_parameters=10_000)
    done = root("retrain", "--dataset", "folder", *WIDE)
    assert done.code == 2
    assert "Network wide has 4,349,962 parameters, and folder allows 10,000" in done.err
    assert not list((root.folder / "cache").glob("models/*"))
    small = root.json("retrain", "--recipe", "post", "--learning-rate", "0.3", "--epochs", "30")
    assert small["outcome"] == "promoted"


class Command:
    """Unpickled, it runs a command."""

    def __init__(self, words):
        self.words = words

    def __reduce__(self):
        return os.system, (self.words,)


def change_export(file, words):
    """Have an export run a command when torch loads it."""
    with zipfile.ZipFile(file) as archive:
        content = {entry: archive.read(entry) for entry in archive.namelist()}
    changed = io.BytesIO()
    torch.save(Command(words), changed)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for entry, data in content.items():
            inputs = entry.endswith("sample_inputs/model.pt")
            archive.writestr(entry, changed.getvalue() if inputs else data)


def test_an_export_that_replaces_the_champions_in_store_and_log_does_not_run(
    root, declare, tmp_path
):
    root.json("retrain", "--recipe", "post", "--learning-rate", "0.3", "--epochs", "30")
    events = {path: json.loads(path.read_text()) for path in root.folder.glob("store/log/*.json")}
    ((path, event),) = [each for each in events.items() if each[1]["kind"] == "promote"]
    there = root.folder / "store" / "artifacts"
    forged = shutil.copytree(there / event["about"]["export"], there / "exports" / "forged")
    ran = tmp_path / "ran"
    change_export(forged / "model.pt2", f"touch {ran}")
    with pytest.raises((AssertionError, TypeError)):  # the second from torch's own warning of it
        torch.export.load(forged / "model.pt2")
    assert ran.exists()  # so it works
    ran.unlink()
    event["about"]["export"] = f"exports/{content_digest(file_stats(forged, {}))}"
    forged.rename(there / event["about"]["export"])
    path.write_text(json.dumps(event))
    declare(max_latency_ratio=1.5)
    wider = root.json("retrain", *WIDE, *THRESHOLD)
    assert any(why.startswith("One image takes ") for why in wider["verdict"]["why"])
    assert not ran.exists()
