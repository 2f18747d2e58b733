"""The log of a run holds what that run says."""

import logging
from uuid import UUID

from reporting.log import RunLog

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
