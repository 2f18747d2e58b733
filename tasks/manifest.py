"""Manifest: which rows are trained and tested on, from the base and the batches of new data."""

from collections import Counter

from artifacts.artifact import Artifact
from artifacts.step import draft
from registry import data
from tasks.intake import LISTED
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
        InputError: a batch has another shape, or classes were reordered or removed.
    """
    from classifier.data import combine
    from classifier.data.batches import check_fits
    from classifier.data.parts import official
    from classifier.datasets import check_classes

    published = official(base.path).description
    names = classes or published.classes
    check_classes(dataset, published.classes, names)
    for batch in batches:
        name = batch.metadata.get("name", str(batch))
        check_fits(batch.path, name, published.shape, names)
    made = combine.combine(
        combine.Source(kind=base.kind, digest=base.digest, folder=base.path),
        [combine.Source(kind=b.kind, digest=b.digest, folder=b.path) for b in batches],
        data.corrections(patches),
        frozenset(erased),
        classes=len(names),
    )
    reasons: dict[str, dict[str, str]] = {}
    for origin, row, reason in made.left_out:
        told = reasons.setdefault(origin, {})
        if len(told) < LISTED:
            told[str(row)] = reason
    with draft() as new:
        made.write(new.folder)
        new.metadata["reasons"] = reasons
        new.metadata["train_rows"] = made.rows("train")
        # A plain dict: asdict() makes nonsense of a Counter.
        new.metadata["left_out"] = dict(Counter(batch for batch, _, _ in made.left_out))
    return new.artifact
