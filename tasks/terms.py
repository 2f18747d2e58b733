"""Terms: what a dataset asks of a model beside its scores, before it may be promoted."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from artifacts.artifact import Artifact
from classifier import datasets
from classifier.errors import ArgumentError
from classifier.training.recipe import Recipe

#: Whether it holds, and a sentence.
Term = tuple[bool, str]


def check_parameters(dataset: str, recipe: Recipe, manifest: Artifact) -> None:
    """Check before a training that its network has no more parameters than the dataset allows.

    Raises:
        ArgumentError: it has more.
    """
    declared = datasets.load(dataset)
    most = declared.max_parameters
    if most is None:
        return
    from classifier.training import networks

    about = manifest.read_json("manifest.json")
    network = networks.build(
        recipe.network, tuple(about["shape"]), about["classes"], declared.networks
    )
    found = sum(parameter.numel() for parameter in network.parameters())
    if found > most:
        raise ArgumentError(
            f"Network {recipe.network} has {found:,} parameters, and {dataset} allows {most:,}: "
            "choose a recipe with a smaller one, or raise max_parameters in the dataset's file."
        )


@task(name="latency", cache_policy=NO_CACHE, persist_result=False)
def latency(dataset: str, model: Artifact, champion: Artifact) -> Term:
    """Compare the time that challenger and champion take for one image on this machine.

    Args:
        dataset: its name; it declares `max_latency_ratio`.
        model: the challenger.
        champion: the model of the champion.

    Raises:
        InputError: a model is missing or damaged, or cannot be exported.
    """
    from classifier import exports, models

    most = datasets.load(dataset).max_latency_ratio
    if most is None:
        raise ValueError(f"{dataset} declares no max_latency_ratio.")
    found = exports.latency_ratio(models.load(model.path), models.load(champion.path))
    sentence = (
        f"One image takes {found:.2f} times as long as with the champion, against {most:g} at most."
    )
    get_run_logger().info("%s", sentence)
    return found <= most, sentence
