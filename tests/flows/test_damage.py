"""What is damaged is never used, and nothing is ever unpickled."""

import base64
import json
import os
import pickle
import shutil

import pytest

from tests.flows.running import STEPS, ran, reasons, run

pytestmark = pytest.mark.usefixtures("server")

KINDS = ("raw", "tables", "manifests", "models", "evaluations", "pictures")
MADE_BY = dict(zip(KINDS, STEPS, strict=True))
LARGEST = {
    "raw": "train-images.idx",
    "tables": "part-00000.parquet",
    "manifests": "manifest.json",
    "models": "weights.safetensors",
    "evaluations": "predictions.parquet",
    "pictures": "samples.png",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory, server):
    """A data root with two runs, of which the second differs in all but the raw files."""
    from tests.conftest import FIXTURE

    folder = tmp_path_factory.mktemp("kept") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_DATA", str(folder))
        patch.setenv("RETRAIN_SOURCE", str(FIXTURE))
        run(seed=1, limit=100)
        run()
    return folder


@pytest.fixture
def mine(kept, root):
    """A copy of it to be damaged; the artifacts of the last run by kind."""
    from artifacts import runs

    shutil.copytree(kept, root)
    _, timeline = runs.timeline_of(None)
    return {
        step["artifact"].partition("/")[0]: root / "cache" / step["artifact"] for step in timeline
    }


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def swap(path):
    """For the other run's; the raw files are the same in both, so among themselves."""
    if path.name == "train-images.idx":
        other = path.with_name("test-images.idx")
    else:
        (artifact,) = (parent for parent in path.parents if len(parent.name) == 64)
        within = path.relative_to(artifact)
        (other,) = (
            folder / within
            for folder in artifact.parent.glob("*/")
            if folder != artifact and (folder / within).read_bytes() != path.read_bytes()
        )
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, truncate, swap, empty])
@pytest.mark.parametrize("kind", MADE_BY)
def test_a_damaged_artifact_is_named_and_computed_again(mine, kind, damage):
    (path,) = sorted(mine[kind].rglob(LARGEST[kind]))[:1]
    before = path.read_bytes()
    damage(path)
    assert path.read_bytes() != before
    result = run()
    assert ran(result) == {MADE_BY[kind]}
    assert path.read_bytes() == before
    (why,) = reasons().values()
    assert path.name in why
    assert "changed" in why


def test_damage_that_keeps_size_and_time_is_found_by_verify_and_removed_with_repair(mine, flows):
    weights = mine["models"] / "weights.safetensors"
    before, stat = weights.read_bytes(), weights.stat()
    flows("cache", "list")
    run()  # remembers size and time of each file
    flip(weights)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ran(run()) == set()
    done = flows("cache", "verify", "--json")
    assert done.code == 1
    (found,) = json.loads(done.out)
    assert found["what"] == f"models/{mine['models'].name}"
    assert found["problem"] == "weights.safetensors has changed"
    assert flows("cache", "verify", "--repair").code == 0
    assert flows("cache", "verify").code == 0
    assert ran(run()) == {"train"}
    assert weights.read_bytes() == before


def rename_digest(path):
    """Change the digest of a record to one that is none."""
    content = path.read_text()
    digest = json.loads(json.loads(content)["result"])["digest"]
    path.write_text(content.replace(digest, digest[:-1] + "g"))


@pytest.mark.parametrize("damage", [rename_digest, truncate, empty])
def test_a_damaged_record_is_evicted(mine, root, damage):
    (record,) = (
        path
        for path in root.glob("cache/records/train/folder/*")
        if "." not in path.name and mine["models"].name in path.read_text()
    )
    before = record.read_text()
    damage(record)
    assert record.read_text() != before
    assert ran(run()) == {"train"}
    assert reasons() == {"train": "its record is damaged"}
    assert mine["models"].name in record.read_text()
    assert ran(run()) == set()


# Pickles

PLANTED = "planted"


class Bomb:
    """Once unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def bombs(path):
    """The same as plain pickle, and as torch saves it."""
    import io

    import torch

    saved = io.BytesIO()
    torch.save(Bomb(path), saved)
    return {"pickle": pickle.dumps(Bomb(path)), "torch": saved.getvalue()}


PLACES = {
    **{kind: f"cache/{kind}/*/**/*" for kind in MADE_BY},
    "file stats": "cache/*/*.json",
    "records": "cache/records/*/*/*",
    "checkpoints": "cache/checkpoints/*/*/*",
    "reports": "reports/*/*",
}


@pytest.mark.parametrize("form", ["pickle", "torch"])
@pytest.mark.parametrize("place", PLACES)
def test_a_planted_pickle_is_not_unpickled_and_the_run_completes(mine, root, place, form):
    from artifacts import layout, records

    if place == "checkpoints":  # of the training that is then missing
        (record,) = (r for r in records.everything() if r.artifact.path == mine["models"])
        checkpoint = layout.scratch(record.key)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.touch()
        shutil.rmtree(mine["models"])
    paths = [path for path in root.glob(PLACES[place]) if path.is_file()]
    assert paths
    for path in paths:
        path.write_bytes(bombs(root / PLANTED)[form])
    result = run()
    assert not (root / PLANTED).exists()
    expected = {
        "records": set(STEPS),
        "checkpoints": {"train"},
        "file stats": set(),
        "reports": set(),
    }
    assert ran(result) == expected.get(place, {MADE_BY.get(place)})


REFUSALS = {
    "model": r"folder is not a readable model \(",
    "table": r"part-00000\.parquet is not a table",
    "description": r"part-00000\.parquet is not a table",
    "predictions": r"part-00000\.parquet holds no predictions \(",
    "idx": r"x\.idx is not an IDX file",
    "gzip": r"x\.gz is not an IDX file",
    "checkpoint": r"The checkpoint .*weights\.safetensors is damaged \(",
}


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_nothing_that_reads_a_file_unpickles_it(tmp_path, form):
    from classifier import models
    from classifier.data import idx, parts
    from classifier.errors import InputError
    from classifier.evaluation import metrics
    from classifier.training import checkpoints

    planted = tmp_path / PLANTED
    bomb = bombs(planted)[form]
    folder = tmp_path / "folder"
    for name in ("weights.safetensors", "model.json", "train/part-00000.parquet", "x.idx", "x.gz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bomb)
    reading = {
        "model": lambda: models.load(folder),
        "table": lambda: parts.official(folder, "train").read(),
        "description": lambda: parts.official(folder),
        "predictions": lambda: metrics.read_predictions(folder / "train" / "part-00000.parquet"),
        "idx": lambda: idx.read(folder / "x.idx"),
        "gzip": lambda: idx.read(folder / "x.gz"),
        "checkpoint": lambda: checkpoints.read(folder / "weights.safetensors"),
    }
    for name, read in reading.items():
        with pytest.raises(InputError, match=REFUSALS[name]):
            read()
        assert not planted.exists(), name
    assert reading.keys() == REFUSALS.keys()
    pickle.loads(bombs(planted)["pickle"])  # noqa: S301 - the bomb works where it is unpickled
    assert planted.exists()


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_record_that_names_pickle_is_not_unpickled(mine, root, form):
    for record in root.glob("cache/records/train/*/*"):
        if "." not in record.name:
            content = json.loads(record.read_text())
            content["metadata"]["serializer"] = {
                "type": "pickle",
                "picklelib": "cloudpickle",
                "picklelib_version": None,
            }
            content["result"] = base64.b64encode(bombs(root / PLANTED)[form]).decode()
            record.write_text(json.dumps(content))
    assert ran(run()) == {"train"}
    assert not (root / PLANTED).exists()
    assert reasons()["train"] == "its record names another serialiser"


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "../../../elsewhere"},
        {"digest": "/etc"},
        {"kind": "../store"},
        {"digest": 5},
        {"metadata": "much"},
        {"metadata": {}},
    ],
    ids=str,
)
def test_a_record_that_is_invalid_or_leads_out_of_the_data_root_is_evicted(mine, root, change):
    for record in root.glob("cache/records/train/*/*"):
        if "." not in record.name:
            content = json.loads(record.read_text())
            artifact = json.loads(content["result"]) | change
            record.write_text(json.dumps(content | {"result": json.dumps(artifact)}))
    assert ran(run()) == {"train"}


def test_a_record_that_names_another_file_is_evicted(mine, root):
    for record in root.glob("cache/records/train/*/*"):
        if "." not in record.name:
            content = json.loads(record.read_text())
            content["metadata"]["storage_key"] = str(root / "elsewhere")
            record.write_text(json.dumps(content))
    assert ran(run()) == {"train"}
