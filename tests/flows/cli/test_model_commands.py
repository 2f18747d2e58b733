"""The commands about models and predictions, on a champion of real digits."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.flows import pictures
from tests.flows.digits import QUICK, TRAIN, Root, digits, new

pytestmark = pytest.mark.slow
FOLDER = ("--dataset", "folder")


@pytest.fixture(scope="module")
def root(tmp_path_factory, source, server):
    """A champion that rests on a batch."""
    folder = tmp_path_factory.mktemp("models")
    with pictures.data_root(folder / "data", source) as there:
        root = Root(there.folder)
        root.add("good", *new(0, 20))
        root.first = root.retrain()
        yield root


@pytest.fixture
def scans(tmp_path):
    """Five digits as pictures three times as large, a text file and a blank picture."""
    images, _ = digits()
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(5):
        picture = Image.fromarray(images[TRAIN + number]).resize((24, 24))
        picture.save(folder / f"{number}.png")
    (folder / "note.txt").write_text("no picture")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "blank.png")
    return folder


def test_predictions_name_class_runner_up_and_model(root, scans):
    found = root.json("predict", scans)
    assert found["model"] == root.first["champion"]
    assert [row["picture"].rpartition("/")[2] for row in found["predictions"]] == [
        f"{number}.png" for number in range(5)
    ]
    labels = digits()[1][TRAIN : TRAIN + 5]
    right = [
        row["label"] == str(label) for row, label in zip(found["predictions"], labels, strict=True)
    ]
    assert sum(right) >= 4
    for row in found["predictions"]:
        assert 1 >= row["probability"] >= row["runner_up_probability"] >= 0
        assert row["label"] != row["runner_up"]
        assert row["model"] == root.first["champion"]
    assert {row["what"].rpartition("/")[2] for row in found["refused"]} == {"note.txt", "blank.png"}


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_predictions_in_a_file_are_the_same_and_are_traced_by_a_retraction(
    root, scans, tmp_path, ending
):
    out = tmp_path / f"answers.{ending}"
    expected = root.json("predict", scans)["predictions"]
    told = root.json("predict", scans, "--out", out)
    assert (told["rows"], told["out"]) == (5, str(out))
    if ending == "parquet":
        rows = pq.read_table(out).to_pylist()
    elif ending == "csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            for name in ("probability", "runner_up_probability"):
                row[name] = float(row[name])
    else:
        rows = json.loads(out.read_text())
    assert rows == expected
    shown = root.data("show", "good")
    assert shown["champions"] == [root.first["champion"]]
    assert any(line.startswith(f"answers.{ending}, ") for line in shown["predictions"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.png",), 1, "is not there"),
        ((".", "--out", "x.txt"), 2, "end it in .parquet, .csv, .json"),
        ((".", "--out", "nowhere/x.csv"), 2, "there is no folder"),
    ],
)
def test_wrong_arguments_are_sentences(root, arguments, code, said):
    done = root("predict", *arguments, *FOLDER)
    assert done.code == code
    assert said in done.sentence


def test_a_file_of_predictions_never_replaces_an_input(root, scans):
    out = scans / "0.csv"
    (scans / "0.png").rename(out)
    before = out.read_bytes()
    for paths in ((scans,), (out,)):
        done = root("predict", *paths, "--out", out, *FOLDER)
        assert done.code == 2
        assert "is one of the inputs" in done.sentence
    assert out.read_bytes() == before


def test_where_nothing_can_be_used_the_code_is_1(root, scans):
    done = root("predict", scans / "note.txt", *FOLDER, "--json")
    assert done.code == 1
    assert json.loads(done.out)["predictions"] == []
    out = scans.parent / "none.csv"
    assert root("predict", scans / "note.txt", "--out", out, *FOLDER).code == 1


def test_without_a_champion_it_says_how_to_get_one(root, scans):
    for command in (("predict", scans), ("models", "show"), ("gate", "budget")):
        done = root(*command, "--dataset", "fashion-mnist")
        assert done.code == 1
        assert "`./run retrain --dataset fashion-mnist`" in done.sentence
    assert root("models", "list", "--dataset", "fashion-mnist").out.startswith("No model")


def test_a_program_loads_the_champion(root, scans):
    from tasks.predict import Prediction, load_champion

    champion = load_champion("folder")
    found = [one for one in champion.predict([scans]) if isinstance(one, Prediction)]
    assert [one.label for one in found] == [
        row["label"] for row in root.json("predict", scans)["predictions"]
    ]
    assert champion.warnings == ()


def test_which_model_was_live_when(root):
    assert root.models("show", "--at", "2100-01-01")["model"] == root.first["champion"]
    for at, code in (("2001-01-01", 1), ("yesterday", 2)):
        assert root("models", "show", "--at", at, *FOLDER).code == code


def test_texts_for_people(root):
    shown = root("models", "show", "champion", *FOLDER).out
    assert "official   " in shown
    assert "95 % " in shown
    assert root.first["champion"] in shown
    listed = root("models", "list", *FOLDER).out
    assert f"models/{root.first['champion'][7:15]}  champion" in listed
    name = root.first["champion"][7:19]
    assert "They were made of the same." in root("models", "diff", name, name, *FOLDER).out


def test_decisions_that_cannot_be_are_sentences(root):
    for command, code, said in (
        (("promote", root.first["champion"], "--why", "x"), 2, "is the champion of folder already"),
        (("promote", "abc", "--why", "x"), 2, "No model begins with 'abc'"),
        (("block", root.first["champion"], "--why", "x"), 2, "roll back, which blocks it"),
        (("rollback", "--why", "x"), 1, "no earlier champion"),
        (("rollback", "--why", " "), 2, "say why"),
        (("thaw", "--why", "x"), 2, "is not frozen"),
    ):
        done = root("models", *command, *FOLDER)
        assert (done.code, said in done.sentence) == (code, True), done.err
    assert root.status() == {root.first["champion"]: "champion"}


def test_files_of_champions_that_are_missing_or_damaged_are_named(root):
    folder = root.folder / "store" / "artifacts"
    shown = root.models("show")
    moved = Path(shown["export"]).parent
    moved.rename(root.folder / "aside")
    card = Path(shown["card"])
    text = card.read_text()
    card.write_text(text + "x")
    done = root("models", "list", "--verify", *FOLDER)
    card.write_text(text)
    (root.folder / "aside").rename(moved)
    assert done.code == 1
    assert f"store/artifacts/{moved.relative_to(folder)}: " in done.err
    assert "card.md has changed" in done.err
    assert root("models", "list", "--verify", *FOLDER).code == 0


def test_retrain_takes_its_options_on_the_command_line(root):
    done = root("retrain", "--help")
    assert "--from" in done.out
    assert "--threshold" in done.out
    assert QUICK


def test_a_time_before_the_first_champion_is_told_from_there_being_none(root):
    done = root("models", "show", "--at", "2020-01-01", "--dataset", "folder")
    assert done.code == 1
    assert "folder had no champion then: the first came on 20" in done.err


def test_a_list_says_why_the_champion_is_one_and_that_promotion_is_frozen(root):
    try:
        root.models("freeze", "--why", "holidays")
        listed = root("models", "list", "--dataset", "folder").out
    finally:
        root.models("thaw", "--why", "back")
    assert listed.endswith("Promotion is frozen: holidays.\n")
    (line,) = (line for line in listed.splitlines() if " champion " in line)
    assert len(line) < 130
    assert "The official test: " in line
    assert "frozen" not in root("models", "list", "--dataset", "folder").out
