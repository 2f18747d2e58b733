"""The log of a run holds what that run says."""

import logging
from uuid import UUID

import pytest

from reporting.log import RUN_LOGGERS, RunLog, leave_out_chatter, listening

ONE, TWO = UUID(int=1), UUID(int=2)


def test_another_run_of_the_process_is_not_logged(tmp_path):
    log = RunLog(tmp_path / "log.txt", ONE)
    said = {"msg": "I am one", "flow_run_id": str(ONE)}
    for record in (said, {"msg": "I am two", "flow_run_id": str(TWO)}, {"msg": "no run says this"}):
        log.handle(logging.makeLogRecord({"levelname": "INFO", "name": "x"} | record))
    log.close()
    text = (tmp_path / "log.txt").read_text()
    assert "I am one" in text
    assert "I am two" not in text
    assert "no run says this" in text


@pytest.fixture(params=RUN_LOGGERS)
def said(request, tmp_path):
    """What a run's log holds after the given lines were logged as Prefect logs them."""
    logger, prefect = logging.getLogger(request.param), logging.getLogger("prefect")
    before = {each: each.level for each in (logger, prefect)}
    prefect.setLevel(logging.INFO)  # as Prefect sets it

    def lines(level, *messages):
        log = RunLog(tmp_path / "log.txt", ONE)
        with listening(log):
            for message in messages:
                logger.log(level, message, extra={"flow_run_id": str(ONE)})
        log.close()
        return (tmp_path / "log.txt").read_text().splitlines()

    yield lines
    for each, level in before.items():
        each.setLevel(level)


PREFECT = (
    "Beginning flow run 'mnist post seed 0' for flow 'train'",
    "View at http://127.0.0.1:4200/runs/flow-run/1",
    "Running hook 'take_back' in response to entering state 'Running'",
    "Hook 'take_back' finished running successfully",
    "Finished in state Completed()",
)


def test_what_prefect_says_of_its_own_work_is_not_logged(said):
    kept = said(logging.INFO, *PREFECT, "Task run failed with exception: Retry 1/2 will start")
    assert [line.split("  ")[-1] for line in kept] == [
        "Task run failed with exception: Retry 1/2 will start"
    ]


def test_a_warning_or_error_is_logged_however_it_begins(said):
    assert len(said(logging.WARNING, *PREFECT)) == len(PREFECT)
    (line,) = said(logging.ERROR, "Finished in state Failed('no space left')")[len(PREFECT) :]
    assert "no space left" in line


def test_a_worker_that_silences_prefect_until_the_flow_starts_silences_no_run(said):
    for name in RUN_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    assert len(said(logging.INFO, "epoch   2: mean loss so far 2.06583")) == 1


def test_the_chatter_is_filtered_once_however_often_it_is_asked_for():
    leave_out_chatter()
    filters = [list(logging.getLogger(name).filters) for name in RUN_LOGGERS]
    leave_out_chatter()
    assert [list(logging.getLogger(name).filters) for name in RUN_LOGGERS] == filters
