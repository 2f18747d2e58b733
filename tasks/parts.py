"""The parts of a manifest: which artifacts hold them, and their rows as one table."""

from typing import TYPE_CHECKING

from artifacts.artifact import Artifact, find_damage
from artifacts.errors import InputError

if TYPE_CHECKING:
    from classifier.data.manifests import Manifest
    from classifier.data.parts import Table


def parts_of(manifest: Artifact) -> list[Artifact]:
    """Return the artifacts that hold the parts, so that a step can name them as its inputs."""
    if manifest.kind != "manifests":  # a stand-in: what would be computed is not known yet
        return []
    parts = manifest.read_json("manifest.json")["parts"]
    names = dict.fromkeys((part["kind"], part["digest"]) for part in parts)
    about = {"group": manifest.metadata.get("group")}
    return [Artifact(kind=k, digest=d, size=0, metadata=about) for k, d in names]


def has_rows(manifest: Artifact, split: str, *, unknown: bool = False) -> bool:
    """Return whether the split has rows; `unknown` where the manifest is a stand-in."""
    if manifest.kind != "manifests":
        return unknown
    return any(part["split"] == split for part in manifest.read_json("manifest.json")["parts"])


def open_split(manifest: Artifact, split: str) -> "tuple[Manifest, Table]":
    """Return the manifest, and the rows of a split; each part is verified first.

    Raises:
        InputError: a part is missing or damaged.
    """
    from classifier.data import manifests
    from classifier.data.parts import BACKUP, Table

    about = manifests.read(manifest.path)
    parts = []
    for entry in about.entries:
        if entry.split != split:
            continue
        artifact = Artifact(kind=entry.kind, digest=entry.digest, size=0)
        folder = artifact.path  # its files come, where they are in the remote alone
        if damage := find_damage(artifact):
            remedy = "`./run train` makes it again" if entry.kind == "tables" else BACKUP
            raise InputError(f"{folder} cannot be read ({damage}): {remedy}.")
        parts.append(entry.part(folder))
    return about, Table(parts, classes=about.classes)
