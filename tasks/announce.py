"""Announce: events that Prefect's automations can act on."""

from prefect.events import emit_event

from registry.data import Batch

BATCH_CAME_IN = "image-retraining.batch.ingested"


def batch_came_in(dataset: str, batch: Batch) -> None:
    """Emit that a dataset has a new batch; a server that does not answer is no error.

    `prefect.yaml` runs retrain on it. What retrain itself takes in is not announced.
    """
    emit_event(
        BATCH_CAME_IN,
        resource={
            "prefect.resource.id": f"image-retraining.dataset.{dataset}",
            "prefect.resource.name": dataset,
        },
        payload={"dataset": dataset, "batch": batch.name, "rows": batch.about["train"]},
    )
