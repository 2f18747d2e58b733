"""./run: real processes in a copy of the project's skeleton, whose pip only takes notes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
#: For tests that take long and on which the shell has no say.
one_shell = pytest.mark.parametrize("project", SHELLS[:1], indirect=True)

#: A Python that notes its calls of venv and pip in $NOTES, and is the real one for all else.
PYTHON = f"""#!/bin/sh
case "$1 $2 $3" in
    "-I -m venv")
        echo "$@" >>"$NOTES"
        mkdir -p "$4/bin"
        cp "$0" "$4/bin/python"
        exec sleep "${{VENV_SECONDS-0}}"
        ;;
    "-I -m pip")
        echo "$@" >>"$NOTES"
        echo "pip on standard output"
        while [ -n "${{PIP_UNTIL-}}" ] && [ ! -e "$PIP_UNTIL" ]; do sleep 0.02; done
        sleep "${{PIP_SECONDS-0}}"
        exit "${{PIP_STATUS-0}}"
        ;;
    "-I -c import sys, pip;"*) exit 0 ;;
    "-I -c import sys, venv, ensurepip;"*) exit "${{VENV_STATUS-0}}" ;;
esac
exec "{sys.executable}" "$@"
"""

#: Stands for flows, pytest and the tools of `check`: prints how it was called, and exits as asked.
ECHO = """
import json, os, sys
print(json.dumps({"name": NAME, "arguments": sys.argv[1:], "folder": os.getcwd()}))
status = os.environ.get("STATUS_" + NAME, "0")
sys.exit(int(status))
"""

#: The same for flows, and notes a `deploy`, which scripts/ui.py asks for.
FLOWS = (
    """
import os, subprocess, sys
from pathlib import Path
if sys.argv[1:] == ["deploy"]:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"flows deploy {os.getpid()}\\n")
    if seconds := os.environ.get("DEPLOY_SECONDS"):
        child = subprocess.Popen(["sleep", seconds])
        with Path(os.environ["NOTES"]).open("a") as notes:
            notes.write(f"child {child.pid}\\n")
        child.wait()
    print("deployed   train/on-demand, retrain/weekly")
    print("alarms     go to the block alarms: Slack Webhook")
    sys.exit(int(os.environ.get("STATUS_deploy", "0")))
"""
    + ECHO
)

#: Behaves as Prefect's command line does where scripts/ui.py is concerned.
PREFECT = """
import http.server, os, signal, sys, time
from pathlib import Path
command = [word for word in sys.argv[1:] if not word.startswith("-")]
if command[:2] == ["worker", "start"]:
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
with Path(os.environ["NOTES"]).open("a") as notes:
    notes.write(f"prefect {' '.join(command)} {os.getpid()}\\n")
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
if command == ["server", "start"]:
    time.sleep(float(os.environ.get("SERVER_SECONDS", "0")))
    host = os.environ.get("PREFECT_SERVER_API_HOST", "127.0.0.1")
    address = (host, int(os.environ["PREFECT_SERVER_API_PORT"]))
    http.server.HTTPServer(address, Health).serve_forever()
if command[:2] == ["worker", "start"]:
    time.sleep(600)
"""


@dataclass
class Project:
    """The skeleton, and what its Python was asked to do."""

    folder: Path
    notes: Path
    shell: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self):
        # An own PYTHON or index of whoever runs these tests does not count here.
        ours = ("PYTHON", "PYTHONPATH", "RETRAIN_TORCH_INDEX")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        return environment | {
            "PYTHON": str(self.folder.parent / "python"),
            "NOTES": str(self.notes),
        }

    def start(self, *arguments, script=None, cwd=None, ignored=None, **environment):
        """Start ./run as a terminal does: Ctrl-C reaches its whole process group."""

        def before_start():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if ignored:
                signal.signal(ignored, signal.SIG_IGN)

        process = subprocess.Popen(
            [self.shell, str(script or self.folder / "run"), *arguments],
            cwd=cwd or self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=before_start,  # noqa: PLW1509
        )
        self.started.append(process)
        return process

    def __call__(self, *arguments, **options):
        return finished(self.start(*arguments, **options))

    def calls(self, module):
        """The arguments of each call of venv or pip so far."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line for line in lines if line.startswith(f"-I -m {module}")]

    def wait_for_note(self, pattern):
        deadline = time.monotonic() + 60
        while not (self.notes.exists() and re.search(pattern, self.notes.read_text())):
            assert time.monotonic() < deadline, f"{pattern} was not noted"
            time.sleep(0.02)


def finished(process):
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(params=SHELLS)
def project(tmp_path, request):
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    shutil.copy(PROJECT / "run", folder)
    shutil.copytree(PROJECT / "scripts", folder / "scripts")
    (folder / "requirements.txt").write_text("numpy==9.9\ntorch==9.9.1\n")
    (folder / "requirements-scale.txt").write_text("-r requirements.txt\ndask==9.9\n")
    (folder / "requirements-dev.txt").write_text("-r requirements-scale.txt\nmypy==9.9\n")
    for name in ("flows", "pytest", "ruff", "mypy", "benchmarks", "importlinter", "prefect"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        text = {"prefect": PREFECT, "flows": FLOWS}.get(name, ECHO).replace("NAME", repr(name))
        (folder / name / "__main__.py").write_text(text)
    (folder / "importlinter" / "cli.py").write_text(
        "def lint_imports_command():\n    import importlinter.__main__\n"
    )
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    project = Project(folder, tmp_path / "notes", request.param)
    yield project
    for process in project.started:
        if process.poll() is None:  # its test failed
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=20)


def test_first_start_sets_up_and_further_ones_say_nothing_about_it(project):
    first = project("train")
    assert first.returncode == 0
    assert first.stderr.startswith("Creating .venv\nInstalling requirements.txt")
    assert "pip on standard output" in first.stderr
    json.loads(first.stdout)  # nothing else is on standard output

    second = project("train")
    assert (second.returncode, second.stderr, second.stdout) == (0, "", first.stdout)
    assert len(project.calls("pip")) == 1


def test_arguments_and_exit_code_pass_through(project):
    arguments = ["cache", "explain", "--name", "two words", "", "*", "--help"]
    for status in ("0", "1", "2", "130"):
        done = project(*arguments, STATUS_flows=status)
        assert done.returncode == int(status)
        assert json.loads(done.stdout)["arguments"] == arguments


def test_a_command_runs_in_the_callers_folder_and_imports_nothing_from_there(project, tmp_path):
    caller = tmp_path / "caller"
    caller.mkdir()
    for name in ("flows", "venv", "pip", "sys"):
        (caller / f"{name}.py").write_text("raise SystemExit('not this one')")
    done = project("train", cwd=caller)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == str(caller)


@pytest.mark.parametrize("relative", [True, False])
def test_it_is_found_through_links(project, tmp_path, relative):
    target = project.folder / "run"
    (tmp_path / "bin").mkdir()
    first, second = tmp_path / "bin" / "first", tmp_path / "second"
    first.symlink_to(os.path.relpath(target, first.parent) if relative else target)
    second.symlink_to("bin/first" if relative else first)
    assert project("train", script=second, cwd=tmp_path).returncode == 0
    assert (project.folder / ".venv").is_dir()


def test_it_is_executable(project):
    done = subprocess.run([project.folder / "run"], check=False, env=project.environment)
    assert done.returncode == 0


def test_tests_get_the_development_lock_and_all_arguments(project):
    done = project("test", "--quick", "-k", "a or b", cwd=project.folder.parent, STATUS_pytest="5")
    assert done.returncode == 5
    call = json.loads(done.stdout)
    assert call["arguments"] == ["--quick", "-k", "a or b"]
    assert call["folder"] == str(project.folder)
    (call,) = project.calls("pip")
    assert call.endswith("requirements-dev.txt")

    assert project("train").stderr == ""  # that lock includes the one of the commands


def test_commands_before_tests_install_both_locks_in_turn(project):
    project("train")
    project("test")
    assert [call.rpartition("/")[2] for call in project.calls("pip")] == [
        "requirements.txt",
        "requirements-dev.txt",
    ]


@one_shell
def test_the_extra_for_several_machines_is_installed_on_request(project):
    project("train")
    assert "Installing requirements-scale.txt" in project("train", RETRAIN_EXTRAS="scale").stderr
    assert project("train", RETRAIN_EXTRAS="scale").stderr == ""
    assert project("train").stderr == ""  # that lock includes the smaller one
    (project.folder / "requirements-scale.txt").write_text("-r requirements.txt\ndask==9\n")
    assert "Installing requirements-dev.txt" in project("check").stderr


@one_shell
def test_an_unknown_extra_is_refused(project):
    done = project("train", RETRAIN_EXTRAS="skale")
    assert done.returncode == 1
    assert done.stderr == "RETRAIN_EXTRAS is 'skale': leave it out, or set it to scale.\n"
    assert not (project.folder / ".venv").exists()


@one_shell
@pytest.mark.parametrize("failing", [None, "ruff", "mypy", "importlinter"])
def test_check_runs_every_tool_and_fails_with_any_of_them(project, failing):
    done = project("check", **({f"STATUS_{failing}": "3"} if failing else {}))
    assert done.returncode == (1 if failing else 0)
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    assert [call["name"] for call in calls] == ["ruff", "ruff", "mypy", "importlinter"]


@one_shell
def test_bench_passes_its_arguments_on(project):
    done = project("bench", "--quick", STATUS_benchmarks="4")
    assert done.returncode == 4
    assert json.loads(done.stdout)["arguments"] == ["--quick"]


@pytest.mark.parametrize("command", ["check", "ui"])
def test_a_superfluous_argument_is_refused_before_the_set_up(project, command):
    done = project(command, "--fix")
    assert done.returncode == 2
    assert done.stderr == f"./run {command} takes no arguments.\n"
    assert not (project.folder / ".venv").exists()


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_installs_nothing_and_lists_the_flows_commands_after_the_set_up(project, arguments):
    before = project(*arguments)
    assert before.returncode == 0
    for command in ("test", "check", "ui", "bench"):
        assert re.search(rf"^  {command} ", before.stdout, re.MULTILINE)
    assert not (project.folder / ".venv").exists()

    project("train")
    after = project(*arguments)
    assert after.stdout.startswith(before.stdout.partition("\n\nThe commands of")[0])
    assert json.loads(after.stdout.splitlines()[-1])["arguments"] == ["--help"]


@one_shell
@pytest.mark.parametrize(
    "change", ["torch==9.9.2\n", "numpy==9.9\n", "numpy==9.9\ntorch==9.9.10\n"]
)
def test_a_changed_lock_is_installed(project, change):
    project("train")
    (project.folder / "requirements.txt").write_text(change)
    assert "Installing requirements.txt" in project("train").stderr
    assert len(project.calls("pip")) == 2
    assert len(project.calls("venv")) == 1
    assert project("train").stderr == ""


def test_a_development_lock_that_became_shorter_is_installed(project):
    project("check")
    (project.folder / "requirements-dev.txt").write_text("-r requirements-scale.txt\nmypy==9\n")
    assert "Installing requirements-dev.txt" in project("check").stderr


def test_a_failing_pip_speaks_for_itself_and_is_tried_again(project):
    done = project("train", PIP_STATUS="2")
    assert done.returncode == 1
    assert done.stdout == ""
    *_, pip, remedy = done.stderr.splitlines()
    assert pip == "pip on standard output"
    assert "run the same command again" in remedy

    again = project("train")
    assert again.returncode == 0
    assert "Creating" not in again.stderr
    assert len(project.calls("pip")) == 2


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_an_interrupted_set_up_is_done_again(project, step):
    process = project.start("train", **{f"{step.upper()}_SECONDS": "600"})
    project.wait_for_note(f"-m {step}")
    time.sleep(0.1)  # for the note's writer to reach its sleep
    os.killpg(process.pid, signal.SIGINT)
    done = finished(process)
    assert done.returncode == 130
    assert done.stderr.endswith("Interrupted: the next ./run sets up again.\n")

    assert project("train").returncode == 0
    assert len(project.calls(step)) == 2


def test_two_at_once_set_up_once(project):
    goes_on = project.folder / "pip goes on"
    first = project.start("train", PIP_UNTIL=str(goes_on))
    project.wait_for_note("-m pip")
    second = project.start("train")
    assert second.stderr.readline() == "Waiting for another ./run, which is setting up\n"
    goes_on.touch()
    assert finished(second).stderr == ""
    assert (finished(first).returncode, second.returncode) == (0, 0)
    assert len(project.calls("pip")) == 1


def test_a_killed_set_up_holds_up_nobody(project):
    process = project.start("train", PIP_SECONDS="600")
    project.wait_for_note("-m pip")
    os.killpg(process.pid, signal.SIGKILL)
    finished(process)
    done = project("train")
    assert done.returncode == 0
    assert "Waiting" not in done.stderr


def test_a_venv_whose_python_is_missing_is_created_again(project):
    project("train")
    python = project.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    assert project("train").returncode == 0
    assert len(project.calls("venv")) == 2


@pytest.mark.parametrize("version", ["Python 3.10.9", None])
def test_an_old_or_missing_python_is_one_sentence(project, tmp_path, version):
    old = tmp_path / "python3.10"
    if version:
        old.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "{version}"\n')
        old.chmod(0o755)
    done = project("train", PYTHON=str(old))
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "Python 3.11 or newer" in sentence
    assert (version or "not found") in sentence


def test_a_python_without_venv_is_one_sentence(project):
    done = project("train", VENV_STATUS="1")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "venv" in sentence


def test_the_torch_index_gives_torch_first_at_the_version_of_the_lock(project):
    done = project("train", RETRAIN_TORCH_INDEX="https://index.example/cpu")
    assert "CUDA" not in done.stderr
    torch, rest = project.calls("pip")
    assert "--no-deps --index-url https://index.example/cpu torch==9.9.1" in torch
    assert "--index-url" not in rest


def test_without_it_a_large_download_is_announced(project):
    printed = project("train").stderr
    if os.uname()[::4] == ("Linux", "x86_64"):
        assert re.search(r"[\d.]+ GB .* CUDA .* RETRAIN_TORCH_INDEX", printed)


@one_shell
def test_a_real_venv_and_pip_do_what_the_others_stand_for(project):
    for name in ("requirements.txt", "requirements-scale.txt", "requirements-dev.txt"):
        (project.folder / name).write_text("# nothing\n")
    first = project("train", PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert (project.folder / ".venv" / "pyvenv.cfg").is_file()
    assert project("train").stderr == ""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@one_shell
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ui_ends_server_and_worker_at_ctrl_c_and_term(project, number):
    port = free_port()
    process = project.start("ui", PREFECT_SERVER_API_PORT=port)
    project.wait_for_note("worker start")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    done = finished(process)
    assert done.returncode == 128 + number
    assert "deployed   train/on-demand, retrain/weekly\nalarms     go to " in done.stderr
    assert f"open       http://127.0.0.1:{port}\n" in done.stderr
    assert done.stdout == ""
    lines = [line.split() for line in project.notes.read_text().splitlines()]
    calls = [line for line in lines if line[0] in {"prefect", "flows"}]
    assert [call[1] for call in calls] == ["server", "deploy", "worker"]
    for *_, pid in calls:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@one_shell
@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - for a moment
        ("127.0.0.2", "127.0.0.2"),
        ("localhost", "localhost"),
    ],
)
def test_ui_serves_where_it_is_told_and_prints_an_address_that_opens(project, host, named):
    port = free_port()
    process = project.start("ui", PREFECT_SERVER_API_PORT=port, PREFECT_SERVER_API_HOST=host)
    project.wait_for_note("worker start")
    with urllib.request.urlopen(f"http://{named}:{port}/", timeout=60) as answer:
        assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    assert f"open       http://{named}:{port}\n" in finished(process).stderr


@one_shell
def test_ui_leaves_a_port_alone_that_is_in_use(project):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = project("ui", PREFECT_SERVER_API_PORT=port)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Port {port} is in use")
    assert "prefect server" not in project.notes.read_text()


@one_shell
def test_ui_says_that_it_runs_when_it_is_started_twice(project):
    port = free_port()
    first = project.start("ui", PREFECT_SERVER_API_PORT=port)
    project.wait_for_note("worker start")
    done = project("ui", PREFECT_SERVER_API_PORT=port)
    assert done.returncode == 1
    told = f"A Prefect server runs already: open http://127.0.0.1:{port}, or"
    assert done.stderr.splitlines()[-1].startswith(told)
    first.send_signal(signal.SIGTERM)
    assert finished(first).returncode == 128 + signal.SIGTERM


@one_shell
def test_ui_leaves_a_port_to_another_one_that_is_starting(project):
    port = free_port()
    first = project.start("ui", PREFECT_SERVER_API_PORT=port, SERVER_SECONDS="600")
    project.wait_for_note("server start")
    done = project("ui", PREFECT_SERVER_API_PORT=port, PREFECT_HOME=str(project.folder / "other"))
    assert done.returncode == 1
    told = f"Another `./run ui` is starting: open http://127.0.0.1:{port} in a minute, or"
    assert done.stderr.splitlines()[-1].startswith(told)
    assert project.notes.read_text().count("server start") == 1
    first.send_signal(signal.SIGTERM)
    assert finished(first).returncode == 128 + signal.SIGTERM


@one_shell
def test_ui_ends_a_deploy_that_a_signal_interrupts_with_all_that_it_started(project):
    process = project.start("ui", PREFECT_SERVER_API_PORT=free_port(), DEPLOY_SECONDS="600")
    project.wait_for_note("child")
    process.send_signal(signal.SIGTERM)
    assert finished(process).returncode == 128 + signal.SIGTERM
    (child,) = re.findall(r"child (\d+)", project.notes.read_text())
    deadline = time.monotonic() + 20
    while _is_alive(child):
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)


def _is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@one_shell
def test_ui_means_relative_folders_as_the_terminal_does(project, tmp_path):
    caller = tmp_path / "caller"
    caller.mkdir()
    process = project.start(
        "ui", cwd=caller, PREFECT_SERVER_API_PORT=free_port(), RETRAIN_DATA="results"
    )
    project.wait_for_note("worker start")
    process.send_signal(signal.SIGTERM)
    assert f"data       {caller / 'results'}\n" in finished(process).stderr


@one_shell
def test_ui_shows_what_deploy_says_where_it_fails(project):
    done = project("ui", PREFECT_SERVER_API_PORT=free_port(), STATUS_deploy="1")
    assert done.returncode == 1
    assert "deployed   train/on-demand, retrain/weekly\n" in done.stderr
    assert done.stderr.endswith("`./run deploy` failed.\n")


@one_shell
@pytest.mark.parametrize("port", ["abc", "0", "99999"])
def test_ui_refuses_a_port_that_is_none_in_a_sentence(project, port):
    done = project("ui", PREFECT_SERVER_API_PORT=port)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"PREFECT_SERVER_API_PORT is '{port}'")


@one_shell
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_ui_says_that_another_user_has_the_lock(project, tmp_path):
    port = free_port()
    lock = tmp_path / f"image-retraining-0-{port}.lock"
    lock.touch()
    os.chown(lock, 65534, 65534)
    done = project("ui", PREFECT_SERVER_API_PORT=port, TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{lock} belongs to another user")


@one_shell
def test_ui_refuses_a_password_on_which_prefect_fails(project):
    done = project("ui", PREFECT_SERVER_API_AUTH_STRING="admin:pässword")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("PREFECT_SERVER_API_AUTH_STRING is not ASCII")


@one_shell
def test_ui_survives_the_terminal_under_nohup(project):
    process = project.start("ui", PREFECT_SERVER_API_PORT=free_port(), ignored=signal.SIGHUP)
    project.wait_for_note("worker start")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finished(process).returncode == 128 + signal.SIGTERM
