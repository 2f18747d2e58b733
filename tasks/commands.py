"""Commands that messages tell people to type."""

DEFAULT_DATASET = "mnist"  # of every command


def dataset_option(dataset: str) -> str:
    """Return the option that names the dataset, with a space before it; empty for the default."""
    return "" if dataset == DEFAULT_DATASET else f" --dataset {dataset}"


def data_command(command: str, batch: str, dataset: str, *more: str) -> str:
    """Return a `data` command about a batch, as it is typed."""
    return f"`./run data {' '.join([command, batch, *more])}{dataset_option(dataset)}`"
