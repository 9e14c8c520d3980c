"""Why an operator's command is refused: a closed list, and what can be done instead.

The same codes stand in the log of commands, where a constraint of the database keeps the list.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

CommandCode = Literal[
    "accepted", "already_requested", "already_paused", "not_paused", "workflow_closed", "workflow_running", "workflow_completed",
    "workflow_paused", "superseded", "rolled_back", "no_such_point", "no_such_activity", "activity_running", "activity_cancelled", "activity_exhausted",
    "id_in_use", "unchanged", "job_ended", "job_executing", "unique_key_taken", "job_waiting", "unique_arguments", "keyed_queue",
    "ambiguous", "unknown_workflow", "unknown_job", "unknown_schedule", "schedule_exists", "schedule_changed",
    "not_undoable", "step_refused",
]  # fmt: skip
CODES: tuple[CommandCode, ...] = get_args(CommandCode)


class Refusal(NamedTuple):
    """What is so, and which commands are legal then."""

    text: str
    next_steps: tuple[str, ...]


_LOOK = "durable show ID"
REFUSALS: dict[str, Refusal] = {
    "already_requested": Refusal("was asked to stop before; the first request stands", ("durable terminate ID", _LOOK)),
    "already_paused": Refusal("is paused already", ("durable resume ID", _LOOK)),
    "not_paused": Refusal("is not paused", ("durable pause ID", _LOOK)),
    "workflow_closed": Refusal(
        "has ended already", ("durable retry ID", "durable reset ID --to-event N", "durable fork ID --to-event N")
    ),
    "workflow_running": Refusal("is still running, so there is no end to take back", ("durable reset ID --to-event N", _LOOK)),
    "workflow_completed": Refusal(
        "completed, so there is no failure to retry", ("durable reset ID --to-event N", "durable fork ID --to-event N")
    ),
    "workflow_paused": Refusal("is paused as a whole", ("durable resume ID", "durable activity set-result ID SEQ JSON")),
    "superseded": Refusal("has another run by now", (_LOOK,)),
    "rolled_back": Refusal(
        "has undone its steps, so a retry would go on without them", ("durable reset ID --to-event 1", "durable fork ID --to-event 1")
    ),
    "not_undoable": Refusal(
        "is no DAG that completed by itself: one that failed or was cancelled has undone its steps, a nested one is undone with its parent", (_LOOK,)
    ),
    "step_refused": Refusal("has the step in a state that does not allow it", ("durable dag steps ID", "durable explain ID")),
    "no_such_point": Refusal("has no such point in its history", ("durable history ID", "durable reset ID --to-event N")),
    "no_such_activity": Refusal("has no such activity pending", (_LOOK, "durable history ID")),
    "activity_running": Refusal(
        "has this activity running at this moment",
        ("durable activity pause ID SEQ", "durable activity set-result ID SEQ JSON", "durable activity set-failure ID SEQ TEXT"),
    ),
    "activity_cancelled": Refusal("has given this activity up: it was asked to stop", (_LOOK,)),
    "activity_exhausted": Refusal(
        "has this activity waiting because its attempts ran out, not because of a pause",
        ("durable activity retry ID SEQ", "durable activity edit-input ID SEQ JSON", "durable activity set-result ID SEQ JSON",
         "durable activity set-failure ID SEQ TEXT"),
    ),
    "unchanged": Refusal("is so already", (_LOOK,)),
    "job_ended": Refusal("has ended already", ("durable job retry ID",)),
    "job_executing": Refusal("is executing at this moment", ("durable job cancel ID",)),
    "unique_key_taken": Refusal("stays as it is: another job holds its unique key by now", ("durable job show ID",)),
    "job_waiting": Refusal("waits for its completion from elsewhere", ("durable job show ID", "durable job cancel ID")),
    "unique_arguments": Refusal("keeps its arguments: its unique key was made of them", ("durable job delete ID",)),
    "keyed_queue": Refusal("keeps its queue: its serial or partition key belongs to that", ("durable job delete ID",)),
    "ambiguous": Refusal("is one of several that were meant, so none was told", ("durable signal ID NAME JSON", _LOOK)),
    "unknown_workflow": Refusal("does not exist", ("durable list --prefix ID",)),
    "unknown_job": Refusal("does not exist", ("durable job list",)),
    "unknown_schedule": Refusal("does not exist", ("durable schedule list",)),
    "schedule_exists": Refusal("exists already", ("durable schedule show ID", "durable schedule update ID")),
    "schedule_changed": Refusal("was changed by somebody else meanwhile", ("durable schedule show ID", "durable schedule update ID")),
    "id_in_use": Refusal("cannot be forked to an id that exists", ("durable fork ID --to ANOTHER", "durable list --prefix ANOTHER")),
}  # fmt: skip


def steps(
    code: str, workflow_id: str, seq: int | None, subject: str = "workflow"
) -> tuple[str, ...]:
    """The legal commands, with their ids filled in."""
    if subject != "workflow" and code in ("already_requested", "unchanged"):
        return (f"durable {subject} show {workflow_id}",)
    return tuple(
        step.replace(" ID", f" {workflow_id}").replace(" SEQ", f" {seq}" if seq else " SEQ")
        for step in REFUSALS[code].next_steps
    )
