"""Where everything lies below the data root.

    <root>/cache/<kind>/<SHA-256>        an artifact: one immutable folder, named by its content
    <root>/cache/<kind>/<SHA-256>.json   size, time and digest of its files when last hashed
    <root>/cache/records/                which key gave which artifact
    <root>/cache/checkpoints/            unfinished work of steps, opaque to this package
    <root>/cache/locks/                  which process computes what, and which runs are running
    <root>/cache/staging/                artifacts that are being written
    <root>/cache/remote/                 what is known of a remote, and what waits for it
    <root>/reports/<run>/                one folder a run
    <root>/store/                        what cannot be computed again; nothing here removes any
    <root>/store/format.json             the format of all that lies in it
    <root>/store/log/                    what happened, one event a file
    <root>/store/artifacts/<kind>/<SHA-256>    artifacts that stay
    <root>/store/erasures/               what other machines erased, and this one has not yet
    <root>/.restoring/                   a backup that is being restored

The root is a setting of the process: RETRAIN_DATA, else `data/` beside this package.
"""

import os
import re
from pathlib import Path

#: Folders of the cache that hold no artifacts.
RESERVED = frozenset({"records", "checkpoints", "locks", "staging", "remote"})
KIND = re.compile(r"[a-z][a-z0-9-]*")
GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
SHA_256 = re.compile(r"[0-9a-f]{64}")
ARTIFACT_NAME = re.compile(r"\b([a-z][a-z0-9-]*)/([0-9a-f]{64})\b")


def root() -> Path:
    """Return the data root of this process."""
    default = Path(__file__).resolve().parent.parent / "data"
    return Path(os.environ.get("RETRAIN_DATA") or default).resolve()


def cache() -> Path:
    """Return the folder of everything that can be computed again."""
    return root() / "cache"


def records() -> Path:
    """Return the folder of the cache records."""
    return cache() / "records"


def checkpoints() -> Path:
    """Return the folder of unfinished work."""
    return cache() / "checkpoints"


def scratch(key: str) -> Path:
    """Return the file in which the step under this key keeps unfinished work."""
    return checkpoints() / key


def locks() -> Path:
    """Return the folder of the locks."""
    return cache() / "locks"


def staging() -> Path:
    """Return the folder of artifacts that are being written."""
    return cache() / "staging"


def reports() -> Path:
    """Return the folder of the reports."""
    return root() / "reports"


def store() -> Path:
    """Return the folder of what cannot be computed again."""
    return root() / "store"


def restoring() -> Path:
    """Return the folder of a backup that is being restored."""
    return root() / ".restoring"


def permanent() -> Path:
    """Return the folder of the artifacts that stay."""
    return store() / "artifacts"


def log() -> Path:
    """Return the folder of the log: one event a file."""
    return store() / "log"


def kinds(folder: Path | None = None) -> list[str]:
    """Return the kinds of which the cache, or another folder, holds artifacts."""
    folder = folder or cache()
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if KIND.fullmatch(name) and name not in RESERVED)


def relative(path: Path) -> str:
    """Return the path relative to the data root, so that the root can move."""
    return path.relative_to(root()).as_posix()
