"""One command over all runs that pass a filter, and the log of commands: the operator's part of a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from durable import interventions, requests
from durable.descriptions import BatchProgress, CommandRecord, Subject
from durable.errors import InvalidOption, OperationRefused, WorkflowClosed, WorkflowNotFound
from durable.ids import uuid7
from durable.interventions import BatchAction
from durable.store import operations
from durable.store.calls import Call

if TYPE_CHECKING:
    from durable.handles_async import AsyncHandle

T = TypeVar("T")
Progress = Callable[[BatchProgress], None]

_PASS = 100
_REFUSALS = (OperationRefused, WorkflowClosed, WorkflowNotFound)


class AsyncBatches:
    """What a client can do over many runs."""

    async def commands(
        self,
        limit: int = 100,
        *,
        batch_id: UUID | str | None = None,
        subject: Subject | None = None,
        name: str | None = None,
        recovery_id: UUID | str | None = None,
        accepted: bool | None = None,
    ) -> Sequence[CommandRecord]:
        """The newest commands that pass every given condition, accepted and refused, and signals to workflows. `limit`: 1 to 10,000.

        `subject` and `name`: to workflows, jobs, queues or schedules, or to the one of this id or name. Raises InvalidOption.
        """
        call = operations.list_commands(
            None if name is None else requests.text("name", name, requests.MAX_ID),
            requests.whole("limit", limit, 1, 10_000),
            batch_id=None if batch_id is None else str(_uuid(batch_id)),
            subject=None if subject is None else requests.one_of("subject", subject, Subject),
            recovery_id=None
            if recovery_id is None
            else str(requests.uuid("recovery_id", recovery_id)),
            accepted=accepted,
        )
        return await self._execute(call)

    async def batch(
        self,
        action: BatchAction,
        where: str | Mapping[str, Any],
        *,
        reason: str,
        actor: Any = None,
        dry_run: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> BatchProgress:
        """Cancel, terminate, retry, reset, pause, resume, signal or move every run that passes a filter, and return what became of it.

        `where`: `"workflow=checkout status=running"` or a mapping; conditions are workflow, status, operator_status, queue, build, id_prefix and
        attribute.NAME, and all must hold. Only the newest run of an id counts, and only runs that exist by now. `options` are those of the verb:
        signal= and value= for signal; build= or anywhere=True for move; to_event=, before_activity=, to_first_failure=, reapply_signals= and timers= for reset. `dry_run` counts and
        writes nothing. `progress` is called after each pass of 100 runs.

        Each run is one transaction with its row in the log of commands, under the batch's id. A batch that was broken off goes on with
        `resume_batch`. Raises InvalidOption, PayloadError, UnknownSignal before anything is done.
        """
        given = interventions.batch_options(action, options)
        bound, filter_ = operations.newest_bound(), interventions.where(where)
        who = None if (encoded := requests.actor(actor)) is None else operations.decoded(encoded)
        batch_id, why = str(uuid7()), interventions.why(reason)
        if action == "signal":
            await self._signal_payload(given["signal"], given.get("value"))
        matched = await self._execute(operations.count_matching(operations.encoded(filter_), bound))
        batch = BatchProgress(
            batch_id, action, filter_, given, why, who, bound, None, matched, 0, 0, None, None
        )
        if dry_run:
            return batch
        await self._execute(operations.begin_batch(batch))
        return await self._run_batch(batch, progress)

    async def resume_batch(
        self, batch_id: UUID | str, *, progress: Progress | None = None
    ) -> BatchProgress:
        """Go on with a batch whose caller died; runs that it has done are not done again. Raises InvalidOption when there is none of this id,
        PayloadError when its signal's value is sealed with a key that this process has not got.
        """
        found = await self._execute(operations.read_batches(str(_uuid(batch_id))))
        if not found:
            raise InvalidOption(f"there is no batch {batch_id}; `durable batch list` shows them")
        interventions.check_readable(found[0].options)
        return await self._run_batch(found[0], progress)

    async def batches(self, limit: int = 20) -> Sequence[BatchProgress]:
        """The newest batches and how far they are. `limit`: 1 to 1,000."""
        checked = requests.whole("limit", limit, 1, 1_000)
        return await self._execute(operations.read_batches(None, checked))

    async def _run_batch(self, batch: BatchProgress, progress: Progress | None) -> BatchProgress:
        reached, filter_ = batch.reached, operations.encoded(batch.filter)
        finished = batch.finished_at is not None
        while not finished:
            runs = await self._execute(
                operations.list_matching(filter_, batch.bound, reached, _PASS)
            )
            for run_id, workflow_id in runs:
                await self._command_in_batch(batch, run_id, workflow_id)
            reached, finished = runs[-1][0] if runs else reached, len(runs) < _PASS
            await self._execute(
                operations.advance_batch(batch.batch_id, reached, finished=finished)
            )
            if progress is not None:
                progress((await self._execute(operations.read_batches(batch.batch_id)))[0])
        return (await self._execute(operations.read_batches(batch.batch_id)))[0]

    async def _command_in_batch(self, batch: BatchProgress, run_id: str, workflow_id: str) -> None:
        """One run; that it refuses is recorded, and no reason to stop."""
        given = operations.order_in_batch(workflow_id, run_id, batch)
        action, options = batch.action, batch.options
        try:
            if action in ("retry", "reset"):
                point = interventions.point_of(action, options)
                chosen = interventions.rewinding(action, options)
                await self._handle_of(workflow_id, None, None)._rewind(point, chosen, given)
            elif action == "pause":
                await self._send(operations.pause_run(given), None)
            elif action == "resume":
                await self._send(operations.resume_run(given), None)
            elif action == "move":
                await self._send(operations.move_in_batch(given, options.get("build")), None)
            else:
                signal = payload = None
                if action == "signal":
                    signal, payload, _ = await self._signal_payload(
                        options["signal"], options.get("value")
                    )
                await self._send(operations.stop_in_batch(given, action, signal, payload), None)
        except _REFUSALS:
            return

    # -- what the client has ----------------------------------------------------------------------------------------------

    async def _execute(self, call: Call[T]) -> T:
        raise NotImplementedError

    async def _send(self, call: Any, connection: Any) -> Any:
        raise NotImplementedError

    async def _signal_payload(self, signal: Any, value: Any) -> tuple[str, str, bool]:
        raise NotImplementedError

    def _handle_of(self, workflow_id: str, run_id: str | None, codec: Any) -> AsyncHandle[Any]:
        raise NotImplementedError


def _uuid(batch_id: UUID | str) -> UUID:
    try:
        return batch_id if isinstance(batch_id, UUID) else UUID(batch_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidOption(f"batch_id is {batch_id!r}; give the UUID of a batch") from error
