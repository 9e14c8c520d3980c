"""Queries: who answers them, and what they see (C14).

A query sees the state at the end of a committed turn, never what a turn in flight may still lose. A run that lives here is asked between two turns: at once
if nothing is under way, else when the turns that were due when the question came are written, so that who signals and then asks sees the signal's
effect (questions are taken before the inbox is read). A run that lives nowhere, or has closed, is replayed aside from its history and dropped
again. So is one whose owner has not answered for a second: it may be dead or busy, and the history is as good.

Nothing is written about the run. A worker whose code lacks the workflow passes the question on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any, Protocol
from uuid import UUID

from durable.core.events import Event
from durable.core.execution import Execution
from durable.core.nothing import NO_ITEMS
from durable.definitions import Workflow
from durable.errors import DurableError
from durable.failure import encode_failure
from durable.store import questions
from durable.store.questions import Answer, Question
from durable.store.session import Session
from durable_worker.committer import Committer

_LIMIT = 100


class Asked(Protocol):
    """What we need to know of a live run."""

    execution: Execution
    committing: bool
    ready: bool
    fresh: bool
    pending: list[Any]
    questions: list[tuple[int, Question]]


class Questions:
    """The questions that this worker has taken and not yet answered."""

    def __init__(
        self,
        session: Session,
        owner: str,
        queues: list[str],
        workflows: Mapping[tuple[str, int], Workflow[..., Any]],
        committer: Committer,
        *,
        live: Callable[[str], Asked | None],
        drop: Callable[[Any], None],
        wake: Callable[[], None],
    ) -> None:
        self._session = session
        self._owner = owner
        self._queues = queues
        self._workflows = workflows
        self._committer = committer
        self._live = live
        self._drop = drop
        self._wake = wake
        self._orphans: list[Question] = []

    async def take(self) -> list[Question]:
        """What is to be answered now. Hand it out once the inbox has been read."""
        orphans, self._orphans = self._orphans, []
        taken = await questions.take_queries(self._session, self._owner, self._queues, _LIMIT)
        return orphans + taken

    async def hand_out(self, taken: list[Question]) -> None:
        """Have each answered by its live run, or from history."""
        elsewhere = []
        for question in taken:
            run = self._live(question.run_id)
            if run is None:
                elsewhere.append(question)
            elif turns := _turns_due(run):
                run.questions = [*run.questions, (turns, question)]
            else:
                self._ask(run, question)
        elsewhere.sort(key=lambda it: it.run_id)
        for _, same in groupby(elsewhere, key=lambda it: it.run_id):
            await self._answer_from_history(list(same))

    def turn_written(self, run: Asked) -> None:
        """One turn more is durable: answer what waited for it."""
        waiting, run.questions = run.questions, NO_ITEMS
        for turns, question in waiting:
            if turns > 1:
                run.questions = [*run.questions, (turns - 1, question)]
            elif run.execution.tainted:
                self._orphans.append(question)
                self._wake()
            else:
                self._ask(run, question)

    def run_left(self, run: Asked) -> None:
        """The run lives here no more: its questions go to its history."""
        self._orphans += [question for _, question in run.questions]
        run.questions = NO_ITEMS
        self._wake()

    def _ask(self, run: Asked, question: Question) -> None:
        self._committer.write(_answer(run.execution, question))
        if run.execution.tainted:
            self._drop(run)

    async def _answer_from_history(self, asked: list[Question]) -> None:
        first = asked[0]
        workflow = self._workflows.get((first.workflow, first.version))
        if workflow is None:
            answers = [Answer(it.shard, it.query_id) for it in asked]
        else:
            history = await questions.read_history(self._session, first)
            answers = _replayed(workflow, history, asked)
        for answer in answers:
            self._committer.write(answer)


def _turns_due(run: Asked) -> int:
    """How many turns are under way or due for what has arrived."""
    due = bool(run.pending) or (run.fresh and not run.committing)
    return int(run.committing) + int(due)


def _has_begun(history: list[Event]) -> bool:
    """Its first turn may have been written since the question was taken."""
    return history[-1].turn > 0 and "before_start" not in history[-1].body


def _replayed(
    workflow: Workflow[..., Any], history: list[Event] | Exception, asked: list[Question]
) -> list[Answer]:
    """Bring the run to life beside its owner, if it has one; nothing of it is kept."""
    first = asked[0]
    execution = Execution(workflow, UUID(first.run_id), first.workflow_id)
    execution.outlives_its_end = True
    try:
        if isinstance(history, Exception):
            raise history
        if not (first.begun or _has_begun(history)):
            raise DurableError("the run has not begun: its code has registered no query yet")
        execution.replay(history)
        if (
            not execution.turn
        ):  # its first turn left no row: take it, and see that it still asks for nothing
            execution.activate([], execution.now_us)
    except Exception as error:
        failure = encode_failure(error)
        return [Answer(it.shard, it.query_id, None, failure) for it in asked]
    else:
        return [_answer(execution, it) for it in asked]
    finally:
        execution.evict()


def _answer(execution: Execution, question: Question) -> Answer:
    try:
        result = execution.query(question.name, question.payload)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever it is, it is the asker's
        return Answer(question.shard, question.query_id, None, encode_failure(error))
    return Answer(question.shard, question.query_id, result)
