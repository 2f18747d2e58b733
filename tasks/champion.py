"""The champion, as the flows use it: its artifacts, what made it, and whether it is a bar."""

from collections.abc import Collection
from statistics import fmean

from artifacts import artifact, keys, layout
from artifacts.artifact import Artifact, find_damage
from artifacts.errors import InputError
from artifacts.keys import KeyComponents
from classifier import datasets
from registry import data, models
from registry.models import Models, Promotion
from tasks.commands import dataset_option

COMPONENTS = "components.json"  # of a card: what the model was made of
#: Argument of `train` that does not count when a training is asked whether it was judged.
INITIAL = ("initial", "input initial")
PRETRAINED = "input pretrained"  # component: the initial weights that a dataset declares


def intact(name: str) -> Artifact:
    """Return a kept artifact, verified; a damaged copy of it in the cache goes.

    Raises:
        InputError: it is missing or damaged where it stays.
    """
    found = models.artifact_of(name)
    if damage := find_damage(found, folder=layout.permanent() / name):
        raise InputError(
            f"{layout.permanent() / name} cannot be used ({damage}): restore it from a backup."
        )
    if find_damage(found):
        artifact.delete(found)
    return found


def components(promotion: Promotion) -> KeyComponents:
    """Return the key components of the training that gave a champion; raises as `intact`."""
    return intact(str(promotion.about["card"])).read_json(COMPONENTS)


def train_key(found: KeyComponents, dataset: str) -> str:
    """Return the key by which a training is known to the gate: starting weights do not count."""
    return keys.key_of({n: v for n, v in found.items() if n not in INITIAL}, dataset)


def with_pretrained(found: KeyComponents, promotion: Promotion) -> KeyComponents:
    """Return the components of a training that starts from a champion, with its initial weights."""
    weights = components(promotion).get(PRETRAINED)
    return found if weights is None else found | {PRETRAINED: weights}


def changed(old: KeyComponents, new: KeyComponents) -> set[str]:
    """Return what changed from one training to another: recipe, data, code, packages, seed."""
    found = set()
    before, after = keys.parameters(old), keys.parameters(new)
    for name in (before.keys() | after.keys()) - set(INITIAL):
        if before.get(name) != after.get(name):
            found.add("seed" if name == "seed" else "recipe")
    if old.get(PRETRAINED) != new.get(PRETRAINED):
        found.add("recipe")
    if keys.inputs(old).get("manifest") != keys.inputs(new).get("manifest"):
        found.add("data")
    if keys.versions(old) != keys.versions(new):
        found.add("packages")
    if not _same_code(old, new):
        found.add("code")
    return found


def _same_code(old: KeyComponents, new: KeyComponents) -> bool:
    def code(found: KeyComponents) -> KeyComponents:
        return {n: v for n, v in found.items() if n.startswith(("code ", "format "))}

    return code(old) == code(new)


def to_start_from(dataset: str, known: Models) -> Artifact:
    """Return the champion, from whose weights a training starts.

    Raises:
        InputError: there is none, it is damaged, or rests on a batch that was retracted.
    """
    if known.champion is None:
        raise no_champion(dataset)
    if not clean(dataset, known.champion):
        raise rests_on_retracted(dataset)
    return intact(known.champion.model)


def clean(dataset: str, promotion: Promotion) -> bool:
    """Return whether a champion rests on no batch that was retracted since.

    Raises:
        InputError: its manifest is missing or damaged.
    """
    return not is_retracted(dataset, intact(str(promotion.about["manifest"])))


def is_retracted(dataset: str, manifest: Artifact) -> bool:
    """Return whether a batch of the manifest was retracted since."""
    used = digests_in(manifest)
    return any(
        not used.isdisjoint((batch.digest, *batch.former))
        for batch in data.current(dataset).batches
        if batch.retracted is not None
    )


def digests_in(manifest: Artifact) -> set[str]:
    """Return the digests of the artifacts that hold the parts of a manifest."""
    return {part["digest"] for part in manifest.read_json("manifest.json")["parts"]}


def resting_on(dataset: str, digests: Collection[str]) -> set[str]:
    """Return the names of the champions in whose manifests one of these artifacts is."""
    return {
        one.model
        for one in models.current(dataset).history
        if not digests_in(intact(str(one.about["manifest"]))).isdisjoint(digests)
    }


def bar(dataset: str, known: Models) -> Promotion | None:
    """Return the champion, or the best earlier one that rests on no retracted batch.

    None where there is none: then a floor is the bar.
    """
    if known.champion is None or clean(dataset, known.champion):
        return known.champion
    return best_clean(dataset, known)


def best_clean(dataset: str, known: Models) -> Promotion | None:
    """Return the best champion so far that rests on no retracted batch and is not blocked."""
    usable = (one for one in known.history if one.model not in known.blocked)
    found = [one for one in usable if clean(dataset, one)]
    return max(found, key=lambda one: score(dataset, one), default=None)


def score(dataset: str, promotion: Promotion) -> float:
    """Return the dataset's metric of a champion on the official test, as of its promotion.

    Raises:
        InputError: its card is missing or damaged.
    """
    summary = promotion.about["summary"]
    if datasets.load(dataset).metric == "accuracy":
        return float(summary["test_accuracy"])
    if "macro_recall" in summary:
        return float(summary["macro_recall"])
    card = intact(str(promotion.about["card"])).read_json("card.json")  # of an older version
    return fmean(row["recall"] for row in card["per_class"] if row["support"])


def check_shape(name: str, manifest: Artifact, dataset: str) -> None:
    """Check that a champion takes the images of the manifest.

    Raises:
        InputError: it takes others.
    """
    mine = list(intact(name).read_json("model.json")["shape"])
    wanted = manifest.read_json("manifest.json")["shape"]
    if mine != wanted:
        raise InputError(
            f"The champion of {dataset} takes images of {mine}, and the data now has {wanted}: "
            "give images of another size a dataset of their own."
        )


def no_champion(dataset: str) -> InputError:
    """Return the error that there is no champion yet, with the remedy."""
    return InputError(
        f"{dataset} has no champion yet: `./run retrain{dataset_option(dataset)}` trains one and "
        "puts it in use."
    )


def rests_on_retracted(dataset: str) -> InputError:
    """Return the error that the champion is no start for a training."""
    return InputError(
        f"The champion of {dataset} rests on a batch that was retracted: train without "
        "`--from champion`."
    )
