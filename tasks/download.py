"""Download: from the dataset's first source that answers correctly to four IDX files."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from classifier import datasets
from tasks import artifacts, local_files, progress
from tasks.artifacts import Artifact
from tasks.caching import BY_CONTENT, step


async def worth_another_try(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a source failed in a way that may pass: 503, a reset, a time-out."""
    error = await state.aresult(raise_on_failure=False)
    return bool(getattr(error, "transient", False))


def local_content() -> str | None:
    """SHA-256 of what the local source holds, which is what counts of it; None without one."""
    folder = artifacts.local_source()
    return local_files.content(folder) if folder else None


@step(
    name="download",
    cache_policy=BY_CONTENT,
    retries=2,
    retry_delay_seconds=exponential_backoff(4),
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_another_try,
)
def download(dataset: str, source: str | None) -> Artifact:
    """The four unpacked IDX files of the dataset, verified.

    Args:
        dataset: its name.
        source: content of the local source, as `local_content` gives it; None: the public ones.
    """
    from tasks import sources

    folder = artifacts.local_source() if source else None
    shown = progress.bar("download", bytes_done=True)
    with artifacts.draft("raw", dataset=dataset) as new, shown as advance:
        new.made["source"] = sources.obtain(
            datasets.load(dataset), new.folder, local=folder, progress=advance
        )
    return new.finished()
