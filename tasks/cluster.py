"""Cluster: steps on Dask workers, one at a time on each. It needs the extra `scale`."""

import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import distributed
import httpx
from dask import config
from dask.base import annotate
from distributed.versions import VersionMismatchWarning
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.logging import get_run_logger
from prefect.logging.configuration import ensure_logging_setup
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

import artifacts.errors
import artifacts.remote
from artifacts import keys, layout, machine
from artifacts.artifact import Artifact
from artifacts.step import Step
from classifier.errors import InputError
from reporting import log

CONNECT_SECONDS, REACH_SECONDS, SEND_SECONDS = 10.0, 5.0, 10.0
END_SECONDS = 1.0  # that a worker process has to end by itself
TOPIC = "log-of-{}"  # of the events that carry the log lines of a flow run
GPU = {"GPU": 1}  # what a training takes of a worker that declares GPUs
#: Packages that scheduler and workers must have in the version of this process.
ALIKE = ("dask", "distributed", "cloudpickle", "msgpack")
#: A cluster of our own: no limit of memory, since a training's is none of Dask's data; no second
#: training that waits on a worker while another worker is idle; and freed memory is kept for the
#: next mini-batch, where Dask hands it back to the system.
SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.comm.timeouts.connect": 60,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
#: Packages that scheduler and workers must be able to import.
IMPORTED = ("prefect_dask", "tasks")
HOW = "docs/many-machines.md has the command"
TLS = "https://distributed.dask.org/en/stable/tls.html"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Workers that are ready for steps.

    Fields:
        runner: of Prefect, started.
        workers: their addresses.
        resources: that a step takes of its worker.
        what: it is, for people.
    """

    runner: DaskTaskRunner
    workers: tuple[str, ...]
    resources: Mapping[str, float]
    what: str

    def ask(self, function: Callable[..., T], *args: Any) -> dict[str, T]:
        """Return what the function returns on each worker, by address; its errors are raised."""
        found: dict[str, T] = self.runner.client.run(function, *args, workers=list(self.workers))
        return found

    def same(self, function: Callable[..., T], *args: Any) -> T:
        """Return what the function returns on all workers alike; its errors are raised.

        Raises:
            InputError: it returns one thing on one worker, and another thing on another.
        """
        (first, found), *others = self.ask(function, *args).items()
        for name, other in others:
            if other != found:
                raise InputError(
                    f"The Dask workers {first} and {name} are not alike, so that one recipe would "
                    "give two models: let workers of one kind of device and precision serve a "
                    "sweep, or name both with --device and --precision."
                )
        return found

    def check_data_root(self, rows: Artifact) -> None:
        """Check that the workers see the data root of this process, or share its remote.

        Raises:
            InputError: one does neither.
        """
        there = artifacts.remote.current()
        address = there.address if there else None
        layout.staging().mkdir(parents=True, exist_ok=True)
        # A root of its own may have equal data, and its models would not be found here.
        with tempfile.NamedTemporaryFile(prefix="sweep-", dir=layout.staging()) as mark:
            seen = self.ask(_sees, rows, Path(mark.name).name, address)
        for name, (folder, found) in seen.items():
            if not found:
                raise InputError(
                    f"The Dask worker {name} does not find {rows} of this process below {folder}: "
                    f"start it with RETRAIN_DATA naming the folder that is {layout.root()} here, "
                    "or both with the same RETRAIN_REMOTE."
                )

    def run(
        self, calls: Iterable[tuple[Step[Any], tuple[Any, ...]]]
    ) -> Iterator[tuple[int, Artifact | Exception]]:
        """Run the steps, and yield the number of each that has ended, with its result or error.

        Raises:
            InputError: the scheduler went away.
        """
        there = self.runner.client.processing(list(self.workers))  # type: ignore[no-untyped-call]
        if busy := sum(map(len, there.values())):
            get_run_logger().info(
                "The workers are busy with other trainings (%d), of another sweep or of one that "
                "was ended: the trials wait for them.",
                busy,
            )
        context = FlowRunContext.get()
        assert context is not None  # noqa: S101 - a flow calls this
        with (
            context.model_copy(update={"task_runner": self.runner}),
            annotate(resources=dict(self.resources)),
        ):
            futures = [step.submit(*arguments) for step, arguments in calls]
        numbers = {future.wrapped_future: number for number, future in enumerate(futures)}
        for done in distributed.as_completed(list(numbers), loop=self.runner.client.loop):
            if done.status in {"cancelled", "lost"}:
                raise InputError(
                    f"{self.what} went away. What was finished is kept: the same command goes on "
                    "from there."
                )
            number = numbers.pop(done)
            result = _result(futures[number])
            done.release()  # or Dask would compute it again if its worker dies
            yield number, result


def _result(future: PrefectDaskFuture[Artifact]) -> Artifact | Exception:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - whoever asked decides
        return error


@contextmanager
def local(workers: int, device: str) -> Iterator[Cluster]:
    """Start a worker process a GPU, or as many as are asked for, which share the cores.

    Only this process can talk to them: they want the certificate that it made.
    """
    each = {
        "nthreads": 1,
        "memory_limit": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",  # of a server that is there all the same
        "host": "127.0.0.1",
        "protocol": "tls",
        "silence_logs": "ERROR",
    }
    secret = distributed.Security.temporary()
    places = _gpus() if device == "cuda" else [None] * workers
    threads = str(max(1, machine.threads() // min(workers, len(places))))
    specification = {
        number: {
            "cls": _Nanny,
            "options": each
            | {"security": secret, "resources": {} if device == "cpu" else GPU}
            | {"env": _environment(threads, place)},
        }
        for number, place in enumerate(places[:workers])
    }
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": "tls",
            "security": secret,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        },
    }
    with (
        config.set(SETTINGS),
        distributed.SpecCluster(
            workers=specification, scheduler=scheduler, security=secret, silence_logs="ERROR"
        ) as cluster,
        DaskTaskRunner(cluster=cluster) as runner,
    ):
        runner.client.wait_for_workers(len(specification))
        runner.client.register_plugin(_LeaveInterrupts())
        with _ready(runner, GPU if device != "cpu" else {}, "The local Dask cluster") as ready:
            yield ready


class _Nanny(distributed.Nanny):
    """Closes its worker at once: what had to be told is told, and Prefect's threads end late."""

    async def kill(self, timeout: float = 1, reason: str = "nanny-kill") -> None:  # noqa: ASYNC109
        await super().kill(timeout=min(timeout, END_SECONDS), reason=reason)


def _environment(threads: str, gpu: str | None) -> dict[str, str]:
    """Return the variables of a worker: its share of the cores, and no bar in the terminal."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    found = dict.fromkeys(names, threads) | {"TTY_COMPATIBLE": "0"}
    return found if gpu is None else found | {"CUDA_VISIBLE_DEVICES": gpu}


def _gpus() -> list[str | None]:
    import torch

    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return list(visible.split(","))
    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def remote(address: str, step: Step[Any], dataset: str, device: str) -> Iterator[Cluster]:
    """Connect to a scheduler, and check that its workers are fit to run the step.

    Raises:
        InputError: it does not answer, or a worker is not fit; the sentence says why.
    """
    with DaskTaskRunner(address=address, client_kwargs={"timeout": CONNECT_SECONDS}) as runner:
        client = _connect(runner, address)
        there = client.scheduler_info(n_workers=-1)["workers"]
        with_gpu = [name for name, worker in there.items() if worker["resources"].get("GPU")]
        resources = GPU if with_gpu and device != "cpu" else {}
        names = with_gpu if resources else list(there)
        _check_workers(client, {name: there[name] for name in names}, address)
        what = f"The Dask scheduler at {address}"
        with _ready(runner, resources, what, names) as ready:
            _check_code(ready, step, dataset)
            yield ready


def _connect(runner: DaskTaskRunner, address: str) -> distributed.Client:
    """Return the client of a scheduler that answers and has workers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # said in a sentence
            client = runner.client
    except TypeError as error:  # of Dask, where a certificate is wanted
        raise InputError(
            f"{address} needs a certificate: name it to Dask, as {TLS} says."
        ) from error
    except OSError as error:
        raise InputError(
            f"No Dask scheduler answers at {address}: start it with `dask scheduler`, or leave "
            "--dask out to use this machine."
        ) from error
    _check_versions(client, address)
    for package in IMPORTED:  # it unpickles what it hands to workers
        found = client.run_on_scheduler(find_spec, package)  # type: ignore[no-untyped-call]
        _check_import(f"The Dask scheduler at {address}", package, found)
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except distributed.TimeoutError as error:
        raise InputError(
            f"The Dask scheduler at {address} has no workers: start some; {HOW}."
        ) from error
    _check_versions(client, address)
    return client


def _check_versions(client: distributed.Client, address: str) -> None:
    """Compare the versions of scheduler and workers with those of this process."""
    found: Any = client.get_versions()

    def of(about: Mapping[str, Any]) -> dict[str, str]:
        python = ".".join(str(about["host"]["python"]).split(".")[:2])
        return {name: str(about["packages"].get(name)) for name in ALIKE} | {"Python": python}

    mine = of(found["client"])
    others = {f"The Dask scheduler at {address}": found["scheduler"]} | {
        f"The Dask worker {name}": about for name, about in found["workers"].items()
    }
    for what, about in others.items():
        theirs = of(about)
        wrong = [f"{n} {theirs[n]} and not {mine[n]}" for n in mine if theirs[n] != mine[n]]
        if wrong:
            raise InputError(
                f"{what} has {', '.join(wrong)}: install requirements-scale.txt there too."
            )


def _check_import(what: str, package: str, found: Any) -> None:
    if found is None and package == "tasks":
        raise InputError(
            f"{what} cannot import this project: start it with PYTHONPATH naming the project's "
            f"folder; {HOW}."
        )
    if found is None:
        raise InputError(
            f"{what} cannot import {package.replace('_', '-')}: install requirements-scale.txt in "
            f"its environment; {HOW}."
        )


def _check_workers(
    client: distributed.Client, there: Mapping[str, Mapping[str, Any]], address: str
) -> None:
    """Check what each worker is, before anything of this project is sent to it."""
    for package in ("torch", *IMPORTED):
        for name, found in client.run(find_spec, package, workers=list(there)).items():
            _check_import(f"The Dask worker {name} of {address}", package, found)
    for name, worker in there.items():
        if worker["nthreads"] != 1:
            raise InputError(
                f"The Dask worker {name} runs {worker['nthreads']} trainings at a time, which "
                f"disturb each other: start it with --nthreads 1; {HOW}."
            )


def _check_code(cluster: Cluster, step: Step[Any], dataset: str) -> None:
    """Check that keys are the same there, and that the workers reach the Prefect server."""
    mine, address = _code(step, dataset), str(PREFECT_API_URL.value())
    for name, theirs in cluster.ask(_code, step, dataset).items():
        if wrong := keys.differences(mine, theirs):
            raise InputError(
                f"The Dask worker {name} has other code or packages ({keys.shorten(wrong)}): "
                "update it, and start it again."
            )
    for name, reached in cluster.ask(_reaches, address).items():
        if not reached:
            raise InputError(
                f"The Dask worker {name} does not reach the Prefect server at {address}: set "
                "PREFECT_API_URL to one that all machines reach."
            )


def _code(step: Step[Any], dataset: str) -> dict[str, Any]:
    return step.rule.code({"dataset": dataset})


def _reaches(address: str) -> bool:
    try:
        return bool(httpx.get(f"{address}/health", timeout=REACH_SECONDS).is_success)
    except httpx.HTTPError:
        return False


def _sees(rows: Artifact, mark: str, address: str | None) -> tuple[str, bool]:
    """Return the data root of this process, and whether what lies there reaches the one that asks.

    Args:
        rows: that it needs.
        mark: name of a file that was staged in the data root of the one that asks.
        address: of that one's remote.
    """
    try:
        there = artifacts.remote.current()
        shares = there is not None and there.address == address
        found = (shares or (layout.staging() / mark).exists()) and rows.path.is_dir()
    except (OSError, artifacts.errors.InputError):
        found = False
    return str(layout.root()), found


@contextmanager
def _ready(
    runner: DaskTaskRunner,
    resources: Mapping[str, float],
    what: str,
    workers: Iterable[str] = (),
) -> Iterator[Cluster]:
    """Hear here what the workers log of this flow run, while the block runs."""
    client, run = runner.client, str(flow_run.id)
    topic = TOPIC.format(run)
    client.subscribe_topic(topic, lambda event: log.hear(event[1]))  # type: ignore[no-untyped-call]
    with suppress(Exception):  # a worker that does not train may be without this project
        client.register_plugin(_Tell(topic, run), name=topic)
    names = tuple(workers) or tuple(client.scheduler_info(n_workers=-1)["workers"])
    try:
        yield Cluster(runner=runner, workers=names, resources=resources, what=what)
    finally:
        with suppress(Exception):  # a worker, or all, may be gone
            client.run(_send_all, on_error="ignore")
            client.unregister_worker_plugin(topic)  # type: ignore[no-untyped-call]


class _LeaveInterrupts(distributed.WorkerPlugin):
    """Leaves Ctrl-C in the terminal to the flow, which ends its workers."""

    def setup(self, worker: distributed.Worker) -> None:  # noqa: ARG002 - Dask passes it
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Tell(distributed.WorkerPlugin):
    """Lets a worker tell what it logs of a flow run."""

    def __init__(self, topic: str, flow_run_id: str) -> None:
        self.topic, self.flow_run_id = topic, flow_run_id

    def setup(self, worker: distributed.Worker) -> None:
        ensure_logging_setup()  # which takes all handlers away, the first time
        self.handler = log.Forwarder(
            self.flow_run_id, lambda line: worker.log_event(self.topic, line)
        )
        log.attach(self.handler)

    def teardown(self, worker: distributed.Worker) -> None:  # noqa: ARG002 - Dask passes it
        log.detach(self.handler)


def _send_all() -> None:
    """Send what the worker has still to tell Prefect: its process may be killed next."""

    def send() -> None:
        for queue in (APILogWorker, EventsWorker):
            queue.drain_all(timeout=SEND_SECONDS, at_exit=False)

    sender = threading.Thread(target=send)  # there, where no event loop runs, it waits
    sender.start()
    sender.join(2 * SEND_SECONDS)
