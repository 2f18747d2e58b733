"""Small stores: artifacts of a few bytes, promoted as real ones are."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

from artifacts import artifact, layout
from artifacts.artifact import find_damage
from registry import backup, decisions, log, models, staying

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stores"
PARTS = {"card": "cards", "export": "exports", "manifest": "manifests"}


def keep(kind, text):
    """The name of an artifact that stays, with this text in it."""
    with artifact.draft(kind, permanent=True) as new:
        (new.folder / "content.txt").write_text(text)
    return new.artifact.name


def promote(text, expected=None, dataset="toys", **more):
    """The event of a promotion of a model with this text."""
    kept = {part: keep(kind, text) for part, kind in PARTS.items()}
    about = {"summary": {}, "train_key": text, "why": "better", "forced": False}
    about |= more
    model = keep("models", text)
    return decisions.promote(dataset, model, expected=expected, **kept, **about)


def roll_back(text, left, dataset="toys"):
    """The event of a rollback to the model with this text, from the one of a promotion."""
    about = {name: value for name, value in left.about.items() if name not in {"model", "previous"}}
    model = keep("models", text)
    return decisions.rollback(
        dataset, model, expected=left.number, **about | {"left": left.about["model"]}
    )


def verified(dataset="toys"):
    """The champion, after a look at every file of it and of those before it."""
    known = models.current(dataset)
    for one in known.history:
        for name in (one.model, *(one.about[part] for part in models.KEPT)):
            folder = layout.permanent() / name
            assert find_damage(models.artifact_of(name), folder=folder, thorough=True) is None
    return known.champion.model


def tree(folder):
    """Each file below a folder that is no note of what was hashed: its bytes, by its path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in found
        if not layout.SHA_256.fullmatch(path.stem)
        or path.suffix != ".json"
        or path.parents[1].name != "artifacts"
    }


def content_of(backup):
    """The bytes of each file of a backup, without the list of them."""
    with tarfile.open(backup) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    found.pop("backup.json")
    return found


def write_backup(path, content, *, members=(), **about):
    """Write a backup of these files, with a list that fits; `members` come in unlisted."""
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    contents = json.dumps({"format": 1, "files": listed} | about).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in members:
            tar.addfile(info)
        info = tarfile.TarInfo("backup.json")
        info.size = len(contents)
        tar.addfile(info, io.BytesIO(contents))
    return path


def ingested(text):
    """The name of a batch that came in."""
    batch = keep("batches", text)
    digest = batch.partition("/")[2]
    log.append("ingest", "toys", batch=digest, name=text, content="0", size=1)
    return batch


def erase(batch, why="asked"):
    """Let an event say that a row of the batch was erased."""
    log.append("erase", "toys", rows=["f" * 64], batches={batch.partition("/")[2]: {}}, why=why)


def older_cache(machines, file):
    """Machine `b` has no store, results of rows that `a` erased since, and a backup of `a`."""
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    (layout.cache() / "pictures").mkdir(parents=True)
    machines.on("a")
    erase(batch)
    artifact.delete(models.artifact_of(batch), permanent=True)
    staying.remove([models.artifact_of(batch)])
    backup.back_up(file)
    machines.on("b")
    shutil.rmtree(layout.store())
