"""Manifest: which rows are trained and tested on, from the base and the batches of new data."""

from collections import Counter

from artifacts.artifact import Artifact
from artifacts.step import draft
from tasks.step import step


@step(kind="manifests")
def manifest(
    base: Artifact,
    batches: list[Artifact],
    patches: list[Artifact],
    erased: list[str],
    dataset: str,
    classes: tuple[str, ...] | None,
) -> Artifact:
    """Write the manifest; no row is copied.

    Args:
        base: what `normalise` returned.
        batches: of new data, in order.
        patches: corrections of labels, in order: a later one counts.
        erased: digests of the rows that must count nowhere.
        dataset: its name.
        classes: names that it declares, by label; None where they are read from the files.

    Raises:
        InputError: the classes of the rows were reordered, or one was removed.
    """
    from classifier.data import combine
    from classifier.data.batches import read_classes
    from classifier.data.parts import official
    from classifier.datasets import check_classes

    known = official(base.path).description.classes
    for names in (known, *(read_classes(batch.path) for batch in batches)):
        check_classes(dataset, names, classes or known)
    corrections: dict[str, int] = {}
    for patch in patches:
        corrections |= patch.read_json("patch.json")["labels"]
    made = combine.combine(
        combine.Source(kind=base.kind, digest=base.digest, folder=base.path),
        [combine.Source(kind=b.kind, digest=b.digest, folder=b.path) for b in batches],
        corrections,
        frozenset(erased),
        classes=len(classes or known),
    )
    with draft() as new:
        made.write(new.folder)
        new.metadata["train_rows"] = made.rows("train")
        # A plain dict: asdict() makes nonsense of a Counter.
        new.metadata["left_out"] = dict(Counter(batch for batch, _, _ in made.left_out))
    return new.artifact
