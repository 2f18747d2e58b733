"""The progress artifact: every run shows its last step at 100 %, and no thread fails or lingers."""

import threading
import time

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from reporting import progress


def senders():
    return [thread for thread in threading.enumerate() if thread.name == "Epochs"]


def shown(number):
    with get_client(sync_client=True) as client:
        return client.request("GET", "/artifacts/{id}", path_params={"id": number}).json()["data"]


@pytest.fixture
def created(server, monkeypatch):
    """Numbers of the artifacts that are made."""
    import prefect.artifacts

    numbers = []
    create = prefect.artifacts.create_progress_artifact

    def remembered(*arguments, **named):
        numbers.append(create(*arguments, **named))
        return numbers[-1]

    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", remembered)
    return numbers


def test_the_last_progress_arrives_also_where_it_comes_at_once(created):
    @flow
    def short():
        with progress.ui_progress("Epochs") as advance:
            advance(1, 3)
            advance(3, 3)

    short()
    assert shown(created[0]) == 100


def test_a_step_that_fails_leaves_what_was_reached_and_no_thread(created):
    @flow
    def short():
        with progress.ui_progress("Epochs") as advance:
            advance(1, 4)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        short()
    assert shown(created[0]) == 25
    assert not senders()


def test_the_flow_may_end_before_the_last_update_is_sent(created, monkeypatch):
    """The client of the flow is closed then: an exception in the thread fails this test."""
    from prefect.client.orchestration import SyncPrefectClient

    update = SyncPrefectClient.update_artifact
    sent = []

    def slowly(self, number, artifact):
        time.sleep(1)
        update(self, number, artifact)
        sent.append(artifact.data)

    monkeypatch.setattr(SyncPrefectClient, "update_artifact", slowly)
    monkeypatch.setattr(progress, "UI_SECONDS", 0.1)

    @flow
    def short():
        with progress.ui_progress("Epochs") as advance:
            advance(1, 1)

    short()
    assert not sent
    for thread in senders():
        thread.join(10)
    assert sent == [100]
