"""Log lines of a run that another process hands over."""

import json
import logging
from uuid import uuid4

import pytest

from reporting import log

RUN = str(uuid4())


@pytest.fixture
def sent():
    """What a forwarder of RUN has sent, as JSON has it."""
    lines = []
    handler = log.Forwarder(RUN, lambda line: lines.append(json.dumps(line)))
    log.attach(handler)
    yield lines
    log.detach(handler)


def said(text, *arguments, exc_info=None, **about):
    """One line of a step."""
    logger = logging.getLogger("prefect.task_runs")
    logger.warning(text, *arguments, exc_info=exc_info, extra={"flow_run_id": RUN} | about)


def test_a_line_arrives_in_the_log_of_its_run_under_the_name_of_its_task(sent, tmp_path):
    said("epoch %d", 3, task_run_name="train seed 1")
    (line,) = sent
    file = log.RunLog(tmp_path / "log.txt", RUN)
    other = log.RunLog(tmp_path / "other.txt", uuid4())
    with log.listening(file), log.listening(other):
        log.hear(json.loads(line))
    for one in (file, other):
        one.close()
    assert "prefect.task_runs  train seed 1: epoch 3" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "other.txt").read_text() == ""


def test_lines_of_other_runs_stay(sent):
    said("not ours", flow_run_id=str(uuid4()))
    assert sent == []


def test_a_traceback_travels_as_text(sent, tmp_path):
    error = ValueError("broken on the way")
    said("it failed", exc_info=(ValueError, error, None))
    file = log.RunLog(tmp_path / "log.txt", RUN)
    with log.listening(file):
        log.hear(json.loads(sent[0]))
    file.close()
    assert "ValueError: broken on the way" in (tmp_path / "log.txt").read_text()
