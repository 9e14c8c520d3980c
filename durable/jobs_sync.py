# Generated from durable/jobs_async.py by tests/unasync.py; edit that file.

"""Standalone jobs: the client's part for enqueueing and finding them, and the handle of one.

The synchronous twin is generated from this file by tests/unasync.py.
"""

from __future__ import annotations

import time
from asyncio import Future
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, TypeVar, overload
from uuid import UUID

from durable import enqueueing, job_commands, outcomes, recorded_jobs, requests, targets
from durable.core.causes import Explanation
from durable.core.job_life import JobState
from durable.definitions import Activity
from durable.descriptions import (
    Conflict,
    EnqueuedMany,
    Evidence,
    FailedAttempt,
    JobDescription,
    JobReceipt,
)
from durable.enqueueing import Item, JobOptions
from durable.failure import decode_failure
from durable.interceptors import ClientRequest, sending
from durable.payload import ValueCodec
from durable.recorded_jobs import RecordedJob, Recorder
from durable.requests import Target
from durable.store import calls, evidence_calls, explanations, job_calls, queue_calls
from durable.unique import Unique

if TYPE_CHECKING:
    from durable.store.calls import Call, Sent
    from durable.store.client_session_sync import ClientSession, Transaction
    from durable.store.job_calls import Enqueued

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")


class Jobs:
    """The client's operations on standalone jobs."""

    _session: ClientSession
    _keyed: frozenset[str] = frozenset()

    @overload
    def enqueue(
        self,
        activity: str,
        arguments: Mapping[str, Any] = ...,
        /,
        *,
        id: UUID | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        unique: Unique | Literal[False] | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        partition_key: str | None = None,
        serial_key: str | None = None,
        weight: float | None = None,
        connection: Transaction | None = None,
    ) -> JobHandle[Any]: ...

    @overload
    def enqueue(
        self,
        activity: Callable[..., Future[R]],
        /,
        *,
        id: UUID | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        unique: Unique | Literal[False] | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        partition_key: str | None = None,
        serial_key: str | None = None,
        weight: float | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> JobHandle[R]: ...

    @overload
    def enqueue(
        self,
        activity: Callable[Concatenate[A, ...], Future[R]],
        a: A,
        /,
        *,
        id: UUID | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        unique: Unique | Literal[False] | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        partition_key: str | None = None,
        serial_key: str | None = None,
        weight: float | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> JobHandle[R]: ...

    @overload
    def enqueue(
        self,
        activity: Callable[Concatenate[A, B, ...], Future[R]],
        a: A,
        b: B,
        /,
        *more: Any,
        id: UUID | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        unique: Unique | Literal[False] | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        partition_key: str | None = None,
        serial_key: str | None = None,
        weight: float | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> JobHandle[R]: ...

    def enqueue(
        self,
        activity: Any,
        /,
        *args: Any,
        id: UUID | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        unique: Unique | Literal[False] | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        partition_key: str | None = None,
        serial_key: str | None = None,
        weight: float | None = None,
        connection: Transaction | None = None,
        **arguments: Any,
    ) -> JobHandle[Any]:
        """Enqueue an activity as a job of its own, outside any workflow, and return its handle.

        `activity` is an activity, or the name of one with its arguments as a mapping (checked against what this process has imported or
        what a worker has registered). `id`, a UUID, makes it idempotent; a new one by default. `queue` and `priority` (0-9, 0 first)
        override the activity's own. `at` (a datetime with time zone) or `delay` (seconds or timedelta): no sooner than then. `tags`:
        short texts; `meta`: a JSON object; both are kept for looking and filtering. `unique`: see `Unique`; by default what the activity was declared with, False: none.
        The handle's `conflict` tells whether it is another job's. `actor`: who asks for it; `headers`: JSON values by name, handed to the code. `serial_key`: one job
        of that key at a time, in the order of enqueueing; `partition_key`: the queue's limits for keys count it, and keys take turns; `weight`: as so many starts it
        counts for rate limits (1). `connection`: joins that transaction (psycopg, SQLAlchemy, Django).

        Raises PayloadError, InvalidOption, ActorRequired, UnknownActivity; nothing is written then.
        """
        target, known = self._activity(activity)
        keys = enqueueing.limit_options(partition_key, serial_key, weight)

        def send(asked: ClientRequest) -> JobHandle[Any]:
            options = JobOptions(
                queue, priority, delay, at, tags, meta, unique, asked.actor, asked.headers, keys
            ).declared(target)
            job_id, given = enqueueing.one(target, known, asked.args, asked.kwargs, options, id)
            kept = None
            if (recorder := recorded_jobs.recorder.get()) is not None:
                kept, made = recorder.take(known, job_id, given)
            else:
                self._expect_keys(given["queue"], keyed="limit_key" in keys)
                call = job_calls.enqueue_job(job_id, given, fresh=id is None)
                made = self._enqueue(call, connection)
            return JobHandle(
                self, made.job_id, target.result, outcome=made.outcome, state=made.state, kept=kept
            )

        chosen = None if id is None else str(id)
        request = ClientRequest("enqueue", target.name, chosen, args, arguments, actor, headers)
        return sending(request, send)

    def enqueue_many(
        self,
        activity: Activity[..., Any],
        items: Iterable[Item],
        /,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        unique: Unique | Literal[False] | None = None,
        actor: Any = None,
        headers: Mapping[str, Any] | None = None,
        partition_key: str | Callable[..., str] | None = None,
        serial_key: str | Callable[..., str] | None = None,
        weight: float | None = None,
        connection: Transaction | None = None,
    ) -> EnqueuedMany:
        """Enqueue one job for each of `items`: tuples of arguments, or mappings by name. All of them, or none: one transaction.

        The items are encoded while they are sent, so that there may be any number. The options are those of `enqueue`, the same for all
        jobs, but `partition_key` or `serial_key` may be a function of an item's arguments. With `unique` the answer's `conflicts` name the items whose key another job holds.

        Raises BulkRefused (a PayloadError) naming each bad item by its index, InvalidOption, and DatabaseUnavailable when the
        connection breaks meanwhile: it is not tried again, because the items are consumed.
        """
        target = targets.of_activity(activity)
        keys, each = enqueueing.item_limits(partition_key, serial_key, weight)
        options = JobOptions(
            queue, priority, delay, at, tags, meta, unique, actor, headers, keys, each
        ).declared(target)
        if (recorder := recorded_jobs.recorder.get()) is not None:
            return self._record_many(recorder, target, activity, items, options)
        many = enqueueing.many(target, activity, items, options, self._session.sealer())
        self._expect_keys(many.given["queue"], keyed=each is not None or "limit_key" in keys)
        done = self._session.enqueue_many(many, connection)
        if done.created or done.conflicts:
            self._session.hint((f"jobs:{many.given['queue']}",), connection)
        return done

    def _record_many(
        self,
        recorder: Recorder,
        target: Target,
        activity: Activity[..., Any],
        items: Iterable[Item],
        options: JobOptions,
    ) -> EnqueuedMany:
        conflicts = []
        created = 0
        for index, (job_id, given) in enumerate(
            enqueueing.one_by_one(target, activity, items, options)
        ):
            _, made = recorder.take(activity, job_id, given)
            created += made.outcome == "created"
            if made.outcome == "conflict":
                conflicts.append(Conflict(index, made.job_id, made.state, "conflict"))
        return EnqueuedMany(created, conflicts)

    def job(self, job_id: str | UUID, activity: Any = None) -> JobHandle[Any]:
        """The handle of a job by its id; nothing is looked up yet. `activity` gives its result a type. Raises InvalidOption."""
        codec = activity.arguments.result if isinstance(activity, Activity) else None
        return JobHandle(self, str(requests.uuid("job_id", job_id)), codec)

    def jobs(
        self,
        *,
        state: JobState | Sequence[JobState] | None = None,
        activity: Activity[..., Any] | str | None = None,
        queue: str | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        limit: int = 100,
    ) -> Sequence[JobDescription]:
        """The newest standalone jobs that pass every given filter, newest first. `tags`: all of them; `meta` and `arguments`: contain
        this. `limit`: 1 to 10,000. An empty filter is refused rather than ignored. Raises InvalidOption.
        """
        filters = enqueueing.job_filters(
            state=state,
            activity=activity,
            queue=queue,
            tags_given=tags,
            meta=meta,
            arguments=arguments,
            limit=limit,
        )
        return self._execute(job_calls.list_jobs(filters))

    def _activity(self, activity: Any) -> tuple[Target, Activity[..., Any] | None]:
        """What to enqueue: the given definition, or by name the one imported here, or the one a worker has registered."""
        if not isinstance(activity, str):
            return targets.of_activity(activity), activity
        if (local := targets.local_activity(activity)) is not None:
            return targets.by_name(targets.of_activity(local), local.arguments.decode), local
        definition = self._execute(calls.read_definition("activity", activity))
        if definition is None:
            known = self._execute(calls.list_definitions("activity"))
            raise targets.unknown_activity(activity, known)
        return targets.of_definition(definition), None

    def _expect_keys(self, queue: str, *, keyed: bool) -> None:
        """Have the queue's claims look for keys, before the first job with one: on our own connection, so that no transaction of the caller's locks the queue."""
        if keyed and queue not in self._keyed:
            self._execute(queue_calls.expect_keys(queue))
            self._keyed |= {queue}

    def _execute(self, call: Call[T]) -> T:
        return self._session.execute(call)

    def _enqueue(self, call: Call[Sent[Enqueued]], connection: Transaction | None) -> Enqueued:
        """A client beside a worker does more here."""
        return self._send(call, connection)

    def _send(self, call: Call[Sent[T]], connection: Transaction | None) -> T:
        if connection is not None:
            sent = self._session.execute_within(connection, call)
            self._session.hint(sent.hints, connection)
        else:
            sent = self._session.execute(call)
            told = self._session.along(call)
            self._session.hint(tuple(hint for hint in sent.hints if hint != told))
        return sent.answer


class JobHandle(Generic[R]):
    """A standalone job, made by `enqueue` or `job`; works from any process.

    `created` tells whether this very enqueue made it, `conflict` whether another job holds the unique key: the handle is that job's, and
    `state` how it stood then. `replaced`: it took over what `Unique(replace=...)` names. All None for a handle that no enqueue gave.
    """

    def __init__(
        self,
        client: Jobs,
        job_id: str,
        codec: ValueCodec | None,
        *,
        outcome: str | None = None,
        state: str | None = None,
        kept: RecordedJob | None = None,
    ) -> None:
        self._client = client
        self._kept = kept
        self._codec = codec
        self.job_id = job_id
        self.state = state
        self.created = None if outcome is None else outcome == "created"
        self.conflict = None if outcome is None else outcome in ("conflict", "replaced")
        self.replaced = None if outcome is None else outcome == "replaced"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job_id!r}>"

    def result(self, timeout: timedelta | float | None = None) -> R:
        """Wait for the end and return the activity's result.

        Raises ActivityError (`.cause` is what the last attempt raised), JobNotFound when there is no such job (its transaction was
        rolled back, or it was pruned), and TimeoutError after `timeout` (seconds or timedelta); the job goes on then.
        """
        if self._kept is not None:
            outcome = self._kept.outcome()
            if not outcomes.job_has_ended(outcome):
                raise TimeoutError(
                    f"{self._kept.name} is {outcome.state} in memory; drain the jobs"
                )
            recorded: R = outcomes.job_result_of(self.job_id, outcome, self._codec)
            return recorded
        waiting = outcomes.Waiting(f"job {self.job_id}", timeout)
        call = job_calls.read_job_outcome(self.job_id)
        while True:
            outcome = self._client._execute(call)
            if outcomes.job_has_ended(outcome):
                result: R = outcomes.job_result_of(self.job_id, outcome, self._codec)
                return result
            time.sleep(waiting.gap_s())

    def describe(self) -> JobDescription:
        """How the job stands. Raises JobNotFound."""
        if self._kept is not None:
            return self._kept.description()
        return self._client._execute(job_calls.describe_job(self.job_id))

    def attempts(self) -> Sequence[FailedAttempt]:
        """Each attempt that did not succeed, oldest first: when, by which worker, with what error. Raises JobNotFound."""
        return [_failed_attempt(error) for error in (self.describe()).errors]

    def evidence(self, limit: int = 100) -> Sequence[Evidence]:
        """Late answers that were refused, and refused commands, newest first; empty also when there is no such job. `limit`: 1 to 10,000."""
        checked = requests.whole("limit", limit, 1, 10_000)
        call = evidence_calls.read_evidence(self.job_id, self.job_id, checked)
        return self._client._execute(call)

    def explain(self) -> Explanation:
        """Everything that keeps it from running now, or that it runs or has ended. Raises JobNotFound."""
        return self._client._execute(explanations.explain_job(self.job_id))

    def cancel(
        self,
        reason: str | None = None,
        *,
        actor: Any = None,
        connection: Transaction | None = None,
    ) -> JobReceipt:
        """End the job if it waits; tell it to stop if it executes. One that has ended meanwhile stays as it is. Raises JobNotFound."""
        if self._kept is not None:
            return self._kept.cancel(requests.reason(reason))
        call = job_calls.cancel_job(self.job_id, requests.reason(reason), requests.actor(actor))
        return self._client._send(call, connection)

    def retry(self, *, actor: Any = None, connection: Transaction | None = None) -> None:
        """Have the job run (again) now, whether it has ended or waits for its time; at least one more attempt is allowed.

        Raises JobNotFound, and JobRefused when it executes or another job holds its unique key by now.
        """
        if self._kept is not None:
            self._kept.retry()
            return
        call = job_calls.retry_job(self.job_id, requests.actor(actor))
        self._client._send(call, connection)

    def edit(
        self,
        *,
        arguments: Mapping[str, Any] | None = None,
        priority: int | None = None,
        queue: str | None = None,
        at: datetime | None = None,
        delay: timedelta | float | None = None,
        tags: Sequence[str] | None = None,
        meta: Mapping[str, Any] | None = None,
        reason: str | None = None,
        actor: Any = None,
        connection: Transaction | None = None,
    ) -> None:
        """Change a job that waits (scheduled, available, retryable); what is None stays. `arguments`: all of them, by name, as JSON values;
        `tags` and `meta` replace what was there. Before and after are in the log of commands.

        Raises JobNotFound, InvalidOption, PayloadError, and JobRefused when it executes or has ended, when its arguments made its unique
        key, or when its serial or partition key belongs to its queue.
        """
        given = {"priority": priority, "queue": queue, "at": at, "delay": delay, "tags": tags, "meta": meta}  # fmt: skip
        changed = job_commands.edit(given, arguments is not None)
        text = None if arguments is None else self._encoded(arguments)
        if self._kept is not None:
            self._kept.edit(changed, text)
            return
        call = job_calls.edit_job(
            self.job_id, changed, text, requests.reason(reason), requests.actor(actor)
        )
        self._client._send(call, connection)

    def _encoded(self, arguments: Mapping[str, Any]) -> str:
        target, _ = self._client._activity((self.describe()).name)
        return target.encode((dict(arguments),), {})

    def delete(self, *, actor: Any = None, connection: Transaction | None = None) -> None:
        """Delete the job and its errors. Raises JobNotFound, and JobRefused when it executes."""
        call = job_calls.delete_job(self.job_id, requests.actor(actor))
        self._client._send(call, connection)


def _failed_attempt(error: Mapping[str, Any]) -> FailedAttempt:
    failure = error.get("failure") or {}
    return FailedAttempt(
        error["attempt"],
        datetime.fromisoformat(error["at"]).astimezone(UTC),
        error.get("worker"),
        decode_failure(failure),
        failure.get("traceback"),
        error.get("delay_s"),
    )
