"""The errors about standalone jobs; part of the tree in errors.py, and as those they say whose fault each one is."""

from __future__ import annotations

from collections.abc import Sequence

from durable.errors import DurableError, PayloadError, WorkflowNotFound


class JobNotFound(WorkflowNotFound):
    """No job has this id: its transaction was rolled back, it was deleted or pruned, or the id is wrong.
    The caller's to check.
    """


class JobRefused(DurableError):
    """The job is in no state for what was asked: it executes, or another job holds its unique key by
    now. The message says which; nothing was changed.
    """


class JobCancelled(DurableError):
    """Why a job was cancelled, as the cause of the ActivityError that its result raises. Whoever cancelled it
    decided so: its own code with `Cancel(reason)`, or somebody from outside.
    """


class BulkRefused(PayloadError):
    """Some items of an `enqueue_many` do not fit the activity (C18). The caller's fault; no job was
    enqueued.

    `errors` are the first hundred, as (index, PayloadError); `count` is the number of bad items.
    """

    def __init__(self, errors: Sequence[tuple[int, PayloadError]], count: int) -> None:
        lines = [f"item {index}: {error.field}: {error.rule}" for index, error in errors[:5]]
        more = [f"and {count - len(lines)} more"] if count > len(lines) else []
        field = f"items[{errors[0][0]}].{errors[0][1].field}"
        super().__init__(field, "; ".join([*lines, *more]), "No job was enqueued: mend the items.")
        self.errors = list(errors)
        self.count = count


class ProcessDied(DurableError):
    """The process that ran an activity with `process=True` ended before it answered: out of memory, a crash in C, `os._exit`.

    The author's or the operator's. The attempt has failed, and is tried again as its policy says.
    """
