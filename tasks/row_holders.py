"""Where rows lie: batches that stay, and the raw files and tables of the cache."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from artifacts import artifact, inventory, layout
from artifacts.artifact import Artifact, find_damage
from artifacts.errors import InputError
from artifacts.inventory import Entry
from artifacts.shared import RemoteDamageError
from registry import data, staying
from registry.data import DataChangedError
from tasks.batch_names import keep_names, names_of
from tasks.errors import INPUT_ERRORS


def batches_of(dataset: str) -> Iterator[Artifact]:
    """Yield every batch of the dataset that lies there, also one that no event names.

    Raises:
        InputError: a batch is damaged.
    """
    for holder in inventory.permanent():
        if holder.kind != data.BATCHES:
            continue
        if damage := find_damage(holder):
            raise InputError(
                f"{holder.path} is damaged ({damage}), so what it holds is not known: restore it "
                "from a backup, ingest its files again, or remove the folder."
            )
        if holder.read_json("batch.json")["dataset"] == dataset:
            yield holder


def bring_back(gone: Collection[str]) -> list[str]:
    """Bring the batches that are in the remote and not here, also those that no event names.

    Args:
        gone: names of batches that erasures replaced, which stay away.

    Returns:
        Sentences about those that are damaged there, so that nobody knows what they hold.

    Raises:
        InputError: the remote does not answer.
    """
    notes = []
    for name in sorted(staying.names_there() - set(gone)):
        kind, _, digest = name.partition("/")
        if kind == data.BATCHES and not (layout.permanent() / name).is_dir():
            try:
                artifact.fetch(Artifact(kind=kind, digest=digest, size=0), permanent=True)
            except RemoteDamageError as error:
                notes.append(f"{error} It may hold such rows: erase them again afterwards.")
    return notes


@contextmanager
def withdrawn_if_too_late(dataset: str, drafts: Collection[Artifact]) -> Iterator[None]:
    """Remove new batches, here and from the remote, where the block finds the data changed.

    They may hold rows that were erased meanwhile.
    """
    try:
        yield
    except DataChangedError:
        named = {batch.digest for batch in data.current(dataset).batches}
        gone = [draft for draft in drafts if draft.digest not in named]
        staying.remove(gone, named=False)
        for each in gone:
            artifact.delete(each, permanent=True)
            names_of(each.digest).unlink(missing_ok=True)
        raise


def cached(there: Iterable[Entry], dataset: str, kinds: Collection[str]) -> Iterator[Artifact]:
    """Yield the artifacts of the cache that hold rows of the dataset, or may."""
    for entry in there:
        if entry.artifact is None or entry.artifact.kind not in kinds:
            continue
        groups = {record.place.partition("/")[2] for record in entry.records}
        if not groups or dataset in groups:
            yield entry.artifact


def rows_or_damaged(holder: Artifact, wanted: frozenset[str]) -> int:
    """Return how many of the rows the artifact holds; 1 for a damaged one, which goes too."""
    try:
        return _rows_in(holder, wanted)
    except INPUT_ERRORS:
        return 1


def _rows_in(holder: Artifact, wanted: frozenset[str]) -> int:
    """Return how many rows of the artifact have one of the digests."""
    from classifier.data import batches, idx
    from classifier.data.digests import row_digests
    from classifier.data.parts import official

    def count(digests: Any) -> int:
        return sum(digest.tobytes().hex() in wanted for digest in digests)

    if holder.kind == data.BATCHES:
        refused = batches.read_refused(holder.path)
        images = [image[None] for _, image in refused if image is not None]
        shown = sum(count(row_digests(image)) for image in images)
        return shown + count(batches.read_rows(holder.path).digests)
    if holder.kind == "tables":
        return sum(count(row_digests(images)) for images, _ in official(holder.path).chunks())
    total = 0
    for path in holder.path.glob("*-images.idx"):
        stored = idx.stored(path)
        for start in range(0, len(stored), 10_000):
            total += count(row_digests(stored[start : start + 10_000]))
    return total


def rewrite(holder: Artifact, wanted: frozenset[str], dataset: str) -> dict[str, Any]:
    """Write the batch without the rows; return what the log says of the new one."""
    from classifier.data import erasure

    names = layout.staging() / f"names-{dataset}-erasure.jsonl"
    with artifact.draft(data.BATCHES, permanent=True) as new:
        kept, about = erasure.write_without(holder.path, new.folder, wanted)
    if names_of(holder.digest).exists():
        with names_of(holder.digest).open(encoding="utf-8") as old:
            lines = [line for row, line in enumerate(old) if kept[row]]
        names.write_text("".join(lines), encoding="utf-8")
        keep_names(new.artifact.digest, names)
    counts = {key: about[key] for key in ("train", "recent", "refused")}
    return {
        "batch": new.artifact.digest,
        "content": about["content"],
        "about": counts | {"size": new.artifact.size},
    }
