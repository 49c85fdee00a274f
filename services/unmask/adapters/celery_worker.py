"""Celery workers: tasks over the runner's step function, in child processes or threads."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from celery.worker.consumer import Consumer

from unmask.adapters.celery_app import STEP_SECONDS, queue_name, task_name
from unmask.core.domain import Message, Priority, Step
from unmask.core.errors import CallerError, Unavailable

if TYPE_CHECKING:
    from celery import Celery

_log = logging.getLogger(__name__)
Run = Callable[[Message, bool], None]
# The store is away: there is nothing better to do than to wait for it, and then the sweeper brings the case back.
_PATIENCE: Final = (0.2, 0.5, 1.0, 2.0, 4.0)


class StepConsumer(Consumer):
    """Celery's consumer without what is not used: delayed delivery alone would declare 28 queues."""

    class Blueprint(Consumer.Blueprint):
        """The steps that remain."""

        default_steps = [  # noqa: RUF012 - Celery's own shape
            step
            for step in Consumer.Blueprint.default_steps
            if not step.endswith(("delayed_delivery:DelayedDelivery", "mingle:Mingle", "gossip:Gossip"))
        ]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Steps and lanes that a worker takes, how many at once, in processes (hostile bytes) or threads (waiting for a server)."""

    steps: Sequence[Step]
    lanes: Sequence[Priority] = (Priority.LIVE, Priority.BATCH)
    concurrency: int = 2
    processes: bool = False
    # Of a child process, bytes of memory it may write to; a picture that needs more fails, and its worker does not.
    memory: int = 2 * 1024**3
    # A child is replaced after so many tasks: what leaks in a decoder goes with it.
    tasks_per_child: int = 2000


def run_worker(app: Celery, settings: WorkerSettings, make_run: Callable[[], Run], name: str) -> int:
    """Works until SIGTERM, then finishes what is in hand; returns the exit code.

    `make_run` is called where the work is done: in each child after the fork, so that no connection crosses it.
    """
    holder = _Holder(make_run)
    for step in settings.steps:
        add_task(app, step, holder)
    if settings.processes:
        signals.worker_process_init.connect(holder.made_in_child(settings.memory), weak=False)
    app.set_default()
    worker = app.Worker(
        hostname=name,
        pool="prefork" if settings.processes else "threads",
        concurrency=settings.concurrency,
        queues=[queue_name(step, lane) for step in settings.steps for lane in settings.lanes],
        optimization="fair",
        max_tasks_per_child=settings.tasks_per_child if settings.processes else None,
        task_time_limit=STEP_SECONDS if settings.processes else None,
        without_heartbeat=False,
        loglevel="WARNING",
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


class _Holder:
    """The function that works a message, made once a process."""

    def __init__(self, make_run: Callable[[], Run]) -> None:
        self._make = make_run
        self._run: Run | None = None

    def made_in_child(self, memory: int) -> Callable[..., None]:
        """What a child does first: bound its memory, connect to everything by itself."""

        def init(**_: Any) -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
            self._run = self._make()

        return init

    def __call__(self, message: Message, redelivered: bool) -> None:
        if self._run is None:
            self._run = self._make()
        self._run(message, redelivered)


def add_task(app: Celery, step: Step, run: Run) -> None:
    """The application's task for a step."""

    @app.task(name=task_name(step), bind=True, shared=False, ignore_result=True)
    def work(task: Any, tenant: str, case_id: str) -> None:
        """One step of one case."""
        told = task.request.delivery_info or {}
        lane = Priority.BATCH if str(told.get("routing_key", "")).endswith(".batch") else Priority.LIVE
        patiently(run, Message(tenant, case_id, step, lane), bool(told.get("redelivered")))


def patiently(run: Run, message: Message, redelivered: bool) -> None:
    """Runs the message; while the store does not answer, again after a while.  Nothing is raised: the store is the truth."""
    for pause in (*_PATIENCE, None):
        try:
            run(message, redelivered)
            return
        except Unavailable as error:
            if pause is None:
                _log.warning("case %s: step %s left to the sweeper (%s)", message.case_id, message.step, error.detail)
                return
            time.sleep(pause)
        except CallerError as error:  # an erased or unknown case: the message is stale
            _log.info("case %s: step %s: %s", message.case_id, message.step, error.detail)
            return
        except Exception:
            _log.exception("case %s: step %s was not worked", message.case_id, message.step)
            return
