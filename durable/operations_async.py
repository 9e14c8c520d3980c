"""What an operator does to one workflow, as methods of its handle: pause, reset, retry, fork, and mend an activity by hand.

Each command is one transaction of the database, fenced against the run's owner (C2), and leaves a row in the log of commands, accepted or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from durable import interventions, requests
from durable.dag.model import INTERPRETER
from durable.descriptions import CommandRecord, RewindReceipt
from durable.errors import OperationRefused, WorkflowNotFound
from durable.interventions import Point, TimersLeft
from durable.store import calls, operations
from durable.store.operations import Order, RewindOptions, ScheduledActivity

if TYPE_CHECKING:
    from durable.client_async import AsyncClient
    from durable.handles_async import AsyncHandle
    from durable.payload import ValueCodec

R = TypeVar("R")

_TRIES = 5
"""How often to begin again when the run continued as new between the look at its history and the command."""


class AsyncRunOperations(Generic[R]):
    """The operator's part of a handle. Commands go to the newest run of the id.

    All raise WorkflowNotFound when there is none; WorkflowClosed or OperationRefused, whose `next_steps` are what is legal instead, when the run
    does not allow it; InvalidOption for what cannot be asked.
    """

    _client: AsyncClient
    _codec: ValueCodec | None
    workflow_id: str

    async def pause(self, reason: str, *, actor: Any = None) -> None:
        """Hold the run: it takes no turn, its waiting activities are not begun and its timers do not fire, until `resume`.

        Attempts under way end, and their outcomes wait, as do signals and a cancel request. Children go on.
        """
        await self._client._send(operations.pause_run(self._order(reason, actor)), None)

    async def resume(self, reason: str | None = None, *, actor: Any = None) -> None:
        """Let a paused run go on. What became due meanwhile happens now; the time does not count for the deadlines of waiting activities."""
        why = requests.reason(reason)
        given = operations.order(self.workflow_id, why, requests.actor(actor))
        await self._client._send(operations.resume_run(given), None)

    async def reset(
        self,
        reason: str,
        *,
        to_event: int | None = None,
        before_activity: str | None = None,
        to_first_failure: bool = False,
        reapply_signals: bool = True,
        timers: TimersLeft = "remaining",
        actor: Any = None,
    ) -> RewindReceipt:
        """Close the run if it is open, and start another under the same id that has its history up to a point and goes on from there.

        The point is one of: `to_event`, the last event kept; `before_activity`, just before the first activity of that name; `to_first_failure`, just
        before the first failed outcome. Activities pending there are scheduled again, under the same idempotency keys; `timers` have as much time left
        as they had there, or are due when they were ("original"). Open children that were pending there become the new run's; those
        started later are ended by their close policies. Signals after the point are sent again unless `reapply_signals` is False. What
        completed activities beyond the point did to the world stays done: the receipt counts them.
        """
        point = Point(to_event, before_activity, to_first_failure).checked()
        options = interventions.rewind_options("reset", reapply_signals, timers)
        return await self._rewind(point, options, self._order(reason, actor))

    async def retry(
        self,
        reason: str,
        *,
        reapply_signals: bool = True,
        timers: TimersLeft = "remaining",
        actor: Any = None,
    ) -> RewindReceipt:
        """Take up again a run that failed, was cancelled or terminated, from before what ended it; as `reset` does.

        Of a failed run that is the outcome of the activity or child that its failure names, and only that runs again: what had
        succeeded after it is kept. A run that failed by a bug in its own code decides its last turn again. Of a DAG all steps that failed are
        retried, as by `retry_step`.
        """
        options = interventions.rewind_options("retry", reapply_signals, timers)
        return await self._rewind(Point(the_end=True), options, self._order(reason, actor))

    async def undo(self, reason: str, *, actor: Any = None) -> RewindReceipt:
        """Undo a DAG's run that has completed, as if it had been cancelled just before its end: what completed is undone, the last first (S197).

        Another run of the same id takes the history up and does so; it ends as cancelled, or as failed with DagFailed if an undo failed. Whoever asks again, when it
        is being undone or has been, gets the same receipt. Refused when the run has not completed, when it is part of another DAG's, and when it was
        taken up again before and that run has been pruned.
        """
        options = interventions.rewind_options("undo", False, "remaining")
        given = self._order(reason, actor)
        for _ in range(_TRIES):
            run = await self._client._execute(calls.describe_run(self.workflow_id, None))
            history = await self._client._execute(
                calls.read_history(self.workflow_id, run.run_id, 0)
            )
            if (done := interventions.undoing(history, run)) is not None:
                return done
            try:
                point = Point(to_event=run.last_seq)
                return await self._rewind_once(point, options, replace(given, run_id=run.run_id))
            except OperationRefused as refused:
                newest = await self._client._execute(calls.describe_run(self.workflow_id, None))
                if refused.code != "superseded" or newest.run_id == run.run_id:
                    raise
                given = self._order(reason, actor)
        raise TimeoutError(f"workflow {self.workflow_id!r} was taken up again all the time")

    async def fork(
        self,
        new_id: str,
        reason: str,
        *,
        to_event: int | None = None,
        before_activity: str | None = None,
        to_first_failure: bool = False,
        reapply_signals: bool = False,
        timers: TimersLeft = "remaining",
        actor: Any = None,
    ) -> AsyncHandle[R]:
        """Start another workflow, `new_id`, that has this one's history up to a point (see `reset`), and return its handle. This one is not touched.

        Activities pending at the point run in the fork too, under idempotency keys of their own; pending children are started again,
        under ids of their own. The fork has no parent.
        """
        fork_id = requests.text("new_id", new_id, requests.MAX_ID)
        point = Point(to_event, before_activity, to_first_failure).checked()
        options = interventions.rewind_options("fork", reapply_signals, timers, fork_id)
        receipt = await self._rewind(point, options, self._order(reason, actor))
        made: AsyncHandle[R] = self._client._handle_of(fork_id, receipt.run_id, self._codec)
        return made

    def activity(self, seq: int) -> AsyncPendingActivity:
        """The activity that event `seq` scheduled; `pending()` lists those that have not ended. Nothing is looked up yet."""
        return AsyncPendingActivity(
            self._client, self.workflow_id, requests.whole("seq", seq, 1, 2**31 - 1)
        )

    async def commands(self, limit: int = 100) -> Sequence[CommandRecord]:
        """What was commanded to this workflow id, accepted or refused, newest first; signals too. `limit`: 1 to 10,000."""
        checked = requests.whole("limit", limit, 1, 10_000)
        return await self._client._execute(
            operations.list_commands(self.workflow_id, checked, subject="workflow")
        )

    def _order(self, reason: str, actor: Any) -> Order:
        why = interventions.why(reason)
        return operations.order(self.workflow_id, why, requests.actor(actor))

    async def _rewind(self, point: Point, options: RewindOptions, given: Order) -> RewindReceipt:
        for _ in range(_TRIES):
            try:
                return await self._rewind_once(point, options, given)
            except OperationRefused as refused:
                if refused.code != "superseded" or given.run_id is not None:
                    raise
                given = operations.order(self.workflow_id, given.reason, given.actor)
        return await self._rewind_once(point, options, given)

    async def _rewind_once(
        self, point: Point, options: RewindOptions, given: Order
    ) -> RewindReceipt:
        try:
            run = await self._client._execute(calls.describe_run(self.workflow_id, given.run_id))
        except WorkflowNotFound:  # asked for all the same, so that the refusal is recorded
            return await self._client._send(
                operations.refuse_rewind(given, options, "no_such_point"), None
            )
        history = await self._client._execute(calls.read_history(self.workflow_id, run.run_id, 0))
        pinned = replace(given, run_id=run.run_id)
        retries_steps = point.the_end and run.workflow == INTERPRETER and run.status == "failed"
        if retries_steps:
            options = interventions.asking_steps(options, given.reason)
        plan = interventions.plan(history, point, run.run_id, run.workflow_id)
        if retries_steps and interventions.has_undone(history):
            call = operations.refuse_rewind(pinned, options, "rolled_back")
        elif plan is None:
            call = operations.refuse_rewind(pinned, options, "no_such_point")
        else:
            call = operations.rewind_run(pinned, plan, options)
        return await self._client._send(call, None)


class AsyncPendingActivity:
    """One activity of a run that has not ended, by the number of the event that scheduled it.

    Raises as the operations of a handle do; what was done is in the history of the run, which goes on as if the activity had done so by itself.
    """

    def __init__(self, client: AsyncClient, workflow_id: str, seq: int) -> None:
        self._client = client
        self.workflow_id = workflow_id
        self.seq = seq

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id!r} {self.seq}>"

    async def pause(self, reason: str, *, actor: Any = None) -> None:
        """Begin no further attempt; one that is under way ends. Its deadlines stand still."""
        await self._act("pause", reason, actor)

    async def resume(self, reason: str | None = None, *, actor: Any = None) -> None:
        """Let a paused activity go on."""
        await self._act("resume", reason or "resumed", actor)

    async def retry(self, reason: str, *, actor: Any = None) -> None:
        """Begin the next attempt now. One whose attempts had run out gets as many again; its time limits begin anew."""
        await self._act("retry", reason, actor)

    async def edit_input(self, arguments: Any, reason: str, *, actor: Any = None) -> None:
        """Give it other arguments, by name, for all attempts from now on; it is not begun by this. Raises PayloadError when they do not fit."""
        scheduled = await self._scheduled(reason, actor)
        payload = interventions.new_input(scheduled, arguments)
        await self._act("edit_input", reason, actor, payload)

    async def set_result(self, value: Any, reason: str, *, actor: Any = None) -> None:
        """End it with this result. An attempt under way loses its say. Raises PayloadError when the value does not fit."""
        scheduled = await self._scheduled(reason, actor)
        payload = interventions.new_result(scheduled, value)
        await self._act("set_result", reason, actor, payload)

    async def set_failure(
        self, message: str, reason: str, *, type: str | None = None, actor: Any = None
    ) -> None:
        """End it as failed: the workflow sees ActivityError whose cause is `type` (a class as `module:name`, NonRetryable if not given)."""
        failure = interventions.new_failure(message, type)
        await self._act("set_failure", reason, actor, None, failure)

    async def _scheduled(self, reason: str, actor: Any) -> ScheduledActivity:
        """What is known of the activity; that there is none is refused by the command itself."""
        call = operations.read_scheduled_activity(self.workflow_id, self.seq)
        scheduled = await self._client._execute(call)
        if scheduled is None:
            await self._act("retry", reason, actor)  # refused, and recorded
            raise OperationRefused(f"no activity {self.seq}")
        return scheduled

    async def _act(
        self,
        action: str,
        reason: str,
        actor: Any,
        payload: str | None = None,
        failure: dict[str, Any] | None = None,
    ) -> None:
        why = interventions.why(reason)
        given = operations.order(self.workflow_id, why, requests.actor(actor))
        call = operations.act_on_activity(given, self.seq, action, payload, failure)
        await self._client._send(call, None)
