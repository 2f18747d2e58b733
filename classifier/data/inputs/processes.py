"""Jobs side by side: this process reads too, so that it does not wait while others start."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import lru_cache

from classifier.data.inputs.rows import Chunk, Job, Subject, checked
from classifier.data.inputs.wording import shown
from classifier.errors import InputError

WORTH_IT = 1.0  # estimated seconds of reading, below which no process is started
MAX_WORKERS = 8
IN_FLIGHT = 8  # chunks held for each worker


def read(job: Job, subject: Subject) -> Chunk:
    """Read one job; any process may.

    Raises:
        InputError: the input is damaged, or changes while it is read.
    """
    return checked(job.rows_of(subject), subject)


def read_all(
    jobs: Sequence[Job], subject: Subject, *, workers: int | None = None
) -> Iterator[Chunk]:
    """Read jobs side by side; their chunks come in the order of the jobs.

    At most IN_FLIGHT chunks a worker are held. Where `prepare` cannot be sent to another process,
    or few rows are to be read, this process reads alone.

    Args:
        jobs: from `plan`.
        subject: what the rows must be.
        workers: processes that read, this one included; by default one for each core that it may
            use, at most MAX_WORKERS.

    Raises:
        InputError: as `read`, or a process ended early.
    """
    others = min(workers or cores(), len(jobs)) - 1
    if workers is None and sum(job.seconds for job in jobs) < WORTH_IT:
        others = 0
    sent = _pickled(subject) if others > 0 else None
    if sent is None:
        yield from (read(job, subject) for job in jobs)
    else:
        yield from _side_by_side(jobs, subject, sent, others)


def cores() -> int:
    """Return how many processes read by default."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(MAX_WORKERS, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _pickled(subject: Subject) -> bytes | None:
    """Return the subject for another process; None where there can be none."""
    if multiprocessing.current_process().daemon:  # it may start no processes
        return None
    try:
        return pickle.dumps(subject)
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda, a closure
        return None


def _side_by_side(
    jobs: Sequence[Job], subject: Subject, sent: bytes, others: int
) -> Iterator[Chunk]:
    """Keep the others in work, and read here what they have not been given."""
    waiting = deque(jobs)
    window: deque[tuple[Job, Future[Chunk | None] | Chunk]] = deque()
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")  # fork would copy the locks of threads
        pool = ProcessPoolExecutor(others, spawn, initializer=_start_worker)
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.enter_context(_unbroken(window))
        most = IN_FLIGHT * (others + 1)
        while waiting or window:
            while waiting and len(window) < most and _unfinished(window) < 2 * others:
                window.append((waiting[0], pool.submit(_read_sent, waiting.popleft(), sent)))
            job, result = window[0]
            if isinstance(result, Future):
                if waiting and len(window) < most and not result.done():
                    window.append((waiting[0], read(waiting.popleft(), subject)))
                    continue
                result = result.result() or read(job, subject)
            window.popleft()
            yield result


def _unfinished(window: Iterable[tuple[Job, "Future[Chunk | None] | Chunk"]]) -> int:
    return sum(isinstance(result, Future) and not result.done() for _, result in window)


@contextmanager
def _unbroken(window: deque[tuple[Job, "Future[Chunk | None] | Chunk"]]) -> Iterator[None]:
    """Tell of a process that ended early in one sentence."""
    try:
        yield
    except BrokenProcessPool as error:
        source = shown(window[0][0].source) if window else "the input"
        raise InputError(
            f"{source}: a process that read it or its neighbours ended early, most likely for lack "
            "of memory: give fewer or smaller images at a time."
        ) from error


@lru_cache(maxsize=1)
def _received(sent: bytes) -> Subject | None:
    """Return the subject; None where its `prepare` cannot be imported in this process."""
    try:
        subject: Subject = pickle.loads(sent)  # noqa: S301 - from the process that started this one
    except (ImportError, AttributeError):
        return None
    return subject


def _read_sent(job: Job, sent: bytes) -> Chunk | None:
    """Read a job in another process; None: it cannot, and the first process must."""
    subject = _received(sent)
    return None if subject is None else read(job, subject)


def _start_worker() -> None:
    """Ctrl-C is for the first process; when that is gone, this one ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
