"""Test sets as the gate needs them: what each model says of the same rows, and which rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifacts import artifact
from artifacts.artifact import Artifact
from artifacts.errors import InputError
from registry import models
from tasks.parts import open_split

if TYPE_CHECKING:
    import numpy as np

    from classifier.evaluation.checks import Scored

KIND = "test-sets"  # of artifacts that stay: the digests of the rows, by which looks are compared
OFFICIAL, RECENT = "official", "recent"
#: Split of the manifest, by the name of the test set.
SPLITS = {OFFICIAL: "test", RECENT: "recent"}


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """One test set, scored today.

    Fields:
        name: official or recent.
        challenger: its evaluation.
        champion, anchor: theirs, where they are a bar.
    """

    name: str
    challenger: Artifact
    champion: Artifact | None = None
    anchor: Artifact | None = None

    @property
    def digest(self) -> str:
        """Digest of its rows and labels."""
        return str(self.challenger.read_json("metrics.json")["test_set"])

    def scored(self, manifest: Artifact) -> "Scored":
        """Return it as the gate takes it.

        Raises:
            InputError: predictions are damaged.
        """
        from classifier.evaluation.checks import Scored
        from classifier.evaluation.metrics import read_predictions

        def predictions(evaluation: Artifact | None) -> "np.ndarray | None":
            if evaluation is None:
                return None
            return read_predictions(evaluation.path / "predictions.parquet")[1]

        labels, challenger, _ = read_predictions(self.challenger.path / "predictions.parquet")
        return Scored(
            name="official" if self.name == OFFICIAL else "recent",
            labels=labels,
            challenger=challenger,
            champion=predictions(self.champion),
            anchor=predictions(self.anchor),
            groups=_groups(manifest) if self.name == RECENT else None,
        )


def _groups(manifest: Artifact) -> "np.ndarray | None":
    """Return a number for the group of each recent row; None where each row is its own."""
    import numpy as np

    from classifier.data import batches, manifests
    from classifier.data.digests import as_keys

    found = []
    for entry in manifests.read(manifest.path).entries:
        if entry.split == batches.RECENT:
            folder = Artifact(kind=entry.kind, digest=entry.digest, size=0).path
            groups = batches.read_groups(folder)[batches.read_rows(folder).recent]
            counts = np.ones(len(groups), np.bool_)
            for start, stop in entry.skip:
                counts[start:stop] = False
            found.append(groups[counts])
    _, numbers = np.unique(as_keys(np.concatenate(found)), return_inverse=True)
    return None if len(np.unique(numbers)) == len(numbers) else numbers


def keep_rows(manifest: Artifact, name: str) -> str:
    """Keep the digests of the rows of a test set; return the name of the artifact."""
    import numpy as np

    from classifier.data.digests import row_digests

    _, table = open_split(manifest, SPLITS[name])
    digests = np.concatenate([row_digests(images) for images, _ in table.chunks()])
    with artifact.draft(KIND, permanent=True) as new:
        np.save(new.folder / "rows.npy", digests)
    return new.artifact.name


def rows_in(name: str) -> frozenset[bytes]:
    """Return the digests of the rows of a kept test set.

    Raises:
        InputError: it is missing or damaged.
    """
    import numpy as np

    kept = models.artifact_of(name)
    if damage := artifact.find_damage(kept):
        raise InputError(f"{kept} cannot be read ({damage}): restore it from a backup.")
    return frozenset(map(bytes, np.load(kept.path / "rows.npy")))
