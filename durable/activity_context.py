"""What an activity may ask about itself: `activity_info()`, `heartbeat()`. The worker provides it around each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from durable.errors import DurableError


class NotInActivity(DurableError):
    """An activity's call was made where no activity runs. The author's fault: a plain function has no attempt."""


class ActivityCancelledError(BaseException):
    """The run asked this sync activity to stop. Raised by `heartbeat()`; let it pass, after cleaning up.

    A BaseException, as asyncio.CancelledError is, so that `except Exception` does not swallow it.
    """


class CompletedElsewhere(BaseException):
    """Ends an attempt without an outcome; made by `complete_elsewhere()`. A BaseException, so that `except Exception` lets it pass."""

    def __init__(self, token: str) -> None:
        super().__init__("this attempt is completed from elsewhere")
        self.token = token


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """Facts about the running attempt.

    `activity_id` names the call within its run; `idempotency_key` is the same for every attempt of that call and for no
    other: pass it to the service you call, since an attempt may run twice (C5). `attempt` counts from 1, `max_attempts` 0 is
    no bound, `snoozes` the attempts that did not count. `callback`: what a job that follows from a run or group is told of it (see docs/guide/evidence.md). `actor` and `headers` are those that travel with the run or job. `deadline` is when this attempt times out. `heartbeat_details` are the last ones of the attempt before. A job
    of its own, enqueued by a client, has no workflow_id and run_id.
    """

    workflow_id: str | None
    run_id: UUID | None
    activity_id: str
    name: str
    queue: str
    attempt: int
    max_attempts: int
    idempotency_key: str
    actor: Any
    deadline: datetime | None
    heartbeat_details: tuple[Any, ...]
    scheduled_at: datetime
    headers: Mapping[str, Any] = field(default_factory=dict)
    schedule_id: str | None = None
    scheduled_for: datetime | None = None
    snoozes: int = 0
    callback: Mapping[str, Any] | None = None

    @property
    def completion_token(self) -> str:
        """With it this attempt can be completed from outside: `client.complete(token, value)`, after `raise durable.complete_elsewhere()`.

        A secret: whoever has it can give the outcome. The same each time within an attempt; the next attempt has another. Raises NotInActivity when the attempt is
        over, DurableError in local and transactional activities, for which no job waits.
        """
        context = _context.get()
        if context is None or context.info is not self:
            raise NotInActivity("a completion token is taken inside the running attempt")
        return context.take_token()

    @property
    def cancelled(self) -> bool:
        """Whether the run has asked this attempt to stop; a long loop may look, instead of heartbeating."""
        context = _context.get()
        return context is not None and context.info is self and context.is_cancelled()


class ActivityContext:
    """The worker's side of one attempt: the facts (made when first asked for), where heartbeats go, whether a cancel has come in."""

    __slots__ = (
        "_info",
        "_make_info",
        "is_async",
        "is_cancelled",
        "make_token",
        "send_heartbeat",
        "token",
    )

    def __init__(
        self,
        make_info: Callable[[], ActivityInfo],
        send_heartbeat: Callable[[tuple[Any, ...]], None],
        is_cancelled: Callable[[], bool],
        is_async: bool,
        make_token: Callable[[], str] | None = None,
    ) -> None:
        self._make_info = make_info
        self._info: ActivityInfo | None = None
        self.send_heartbeat = send_heartbeat
        self.is_cancelled = is_cancelled
        self.is_async = is_async
        self.make_token = make_token
        self.token: str | None = None

    def take_token(self) -> str:
        """The attempt's completion token. Raises DurableError where there can be none."""
        if self.token is None:
            if self.make_token is None:
                raise DurableError(
                    f"activity {self.info.name!r} cannot be completed from elsewhere: it runs locally or in a transaction, and no job waits for an answer"
                )
            self.token = self.make_token()
        return self.token

    @property
    def info(self) -> ActivityInfo:
        """The facts; always the same object."""
        if self._info is None:
            self._info = self._make_info()
        return self._info


_context: ContextVar[ActivityContext | None] = ContextVar("durable_activity", default=None)

enter = _context.set
"""For the worker: make a context the current one; returns the token for `leave`."""

leave = _context.reset


def running_attempt() -> ActivityContext | None:
    """The attempt that is calling, if any."""
    return _context.get()


def _current(call: str) -> ActivityContext:
    context = _context.get()
    if context is None:
        raise NotInActivity(
            f"durable.{call} works inside a running activity only. In a test of the plain function, set a context"
        )
    return context


def activity_info() -> ActivityInfo:
    """Facts about the running attempt. Raises NotInActivity elsewhere."""
    return _current("activity_info()").info


def complete_elsewhere() -> CompletedElsewhere:
    """`raise durable.complete_elsewhere()`: this attempt ends without an outcome; `client.complete(token, ...)` or `fail` will give it.

    Take `activity_info().completion_token` before, and hand it to whoever will. The slot is free; the job waits, within its timeouts. Raises
    DurableError if no token was taken, for then nobody could; NotInActivity outside activities.
    """
    context = _current("complete_elsewhere()")
    if context.token is None:
        raise DurableError(
            "nobody could complete this attempt: take durable.activity_info().completion_token first, and hand it on"
        )
    return CompletedElsewhere(context.token)


def heartbeat(*details: Any) -> None:
    """Say that this attempt is alive, and leave `details` (JSON values) for the next one should it not be.

    Cheap: the worker sends at most some per second. Raises asyncio.CancelledError in an async activity and
    ActivityCancelledError in a sync one when the run has asked it to stop; NotInActivity outside activities.
    """
    context = _current("heartbeat()")
    context.send_heartbeat(details)
    if context.is_cancelled():
        message = "the workflow has cancelled this activity"
        raise (
            asyncio.CancelledError(message) if context.is_async else ActivityCancelledError(message)
        )
