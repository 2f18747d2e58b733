"""Reports of runs, while they are removed."""

import shutil
import threading
import time

from artifacts import layout, runs


def test_reports_that_are_removed_meanwhile_are_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))
    stays = layout.reports() / "20260101-000000-00000000" / "report.json"
    stays.parent.mkdir(parents=True)
    stays.write_text("{}")
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            for number in range(1, 20):
                folder = layout.reports() / f"20260101-000000-{number:08x}"
                folder.mkdir(exist_ok=True)
                (folder / "report.json").write_text("{}")
                shutil.rmtree(folder)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert stays in runs.finished_reports()
    over.set()
    thread.join()
