"""Why something does not go on: a closed list of causes, each with its sentence, who can act, and the commands that are legal then.

The codes are frozen: programs act on them, so one is never renamed and never means something else; a new one may be added. A sentence names its facts
in braces, and `Cause.facts` has every one of them as a value. Pure: the time that "in 3m" counts from is given.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

OperatorStatus = Literal["runnable", "waiting", "blocked", "needs_review", "done"]

CauseCode = Literal[
    # the run as a whole
    "ended", "nondeterminism", "turn_fails", "kills_workers", "run_paused", "cancel_requested", "delayed", "ready", "in_turn",
    "no_worker_for_workflow", "no_worker_for_build", "worker_silent", "message_waiting", "update_waiting",
    # what its code waits for
    "signal", "timer", "condition", "child", "local_activity", "dependencies", "dependency_failed", "completion_awaited", "steps_failed", "halted",
    # an activity or a job
    "executing", "completed_elsewhere", "scheduled", "retry", "job_paused", "exhausted", "unknown_activity", "no_worker", "queue_paused", "claim_disabled",
    "global_limit", "rate_limit", "key_limit", "key_rate_limit", "serial_predecessor", "no_free_slot",
    # a schedule
    "schedule_paused", "schedule_next", "schedule_over", "slot_skipped", "slot_limit", "slot_missed", "slot_waits", "no_worker_for_schedules",
]  # fmt: skip
"""Why a run, step, job or schedule stands as it does; the list is closed."""

CODES: tuple[CauseCode, ...] = get_args(CauseCode)

Who = Literal["nobody", "operator", "developer", "sender"]
"""Who can act. "nobody" need: it goes on by itself. "sender": whoever is to send what is awaited."""

_RANK: Mapping[OperatorStatus, int] = {
    "done": 0,
    "runnable": 1,
    "waiting": 2,
    "blocked": 3,
    "needs_review": 4,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(NamedTuple):
    """One entry of the list. `steps` are commands with a remark after `#`; a step whose fact is not there is left out."""

    status: OperatorStatus
    who: Who
    sentence: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something that can be done: a command as it is typed (words in capitals are to be filled in), or what to do in words; and what that is for."""

    command: str
    remark: str


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason. `about` is the activity, child or step that it is a reason for (empty: the thing itself), `line` the author's line that waits.

    `since` and `until` are by the database's clock; `until` is when it ends by itself, if that is known. `facts` holds what the sentence names; times in
    it are microseconds since 1970 under names that end in `_us`. `causes` are the other end's own, one level deep.
    """

    code: CauseCode
    status: OperatorStatus
    sentence: str
    who: Who
    next_steps: tuple[NextStep, ...]
    about: str = ""
    line: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    causes: tuple[Cause, ...] = ()


_LOOK = "durable show {run}  # everything recorded about it"
_ACTIVITY = (
    "durable activity retry {id} {seq} --reason WHY  # run it again now",
    "durable activity set-result {id} {seq} JSON --reason WHY  # go on with this result",
    "durable activity set-failure {id} {seq} TEXT --reason WHY  # let the code see a failure",
)
_JOB = (
    "durable job retry {job_id}  # run it now",
    "durable job cancel {job_id}  # end it",
)
_QUEUE = "durable queue show {queue}  # its limits, and what uses them"

KINDS: Mapping[CauseCode, Kind] = {
    "ended": Kind(
        "done", "nobody", "it ended as {status}{when}{text}{because}",
        (
            "durable retry {retried} --reason WHY  # go on from before its end",
            "durable explain {continued}  # the run that continues it",
            "durable history {run}  # everything that happened",
            "durable job retry {retried_job}  # run it again now",
            "durable job show {job_id}  # its result, and the errors of every attempt",
            "durable dag retry-step {id} {failed_step} --reason WHY  # run it again, and what depends on it",
        ),
    ),
    "nondeterminism": Kind(
        "needs_review", "developer",
        "the code no longer does what its history says, since {since}; {again} (tries so far: {times})\n{message}",
        (
            "deploy the code that it was started with, or guard the change with durable.patched(id)  # it then goes on by itself",
            "durable replay {id} --module MODULE  # see the difference on this machine",
            "durable reset {id} --to-event N --reason WHY  # give up what was done after event N",
        ),
    ),
    "turn_fails": Kind(
        "needs_review", "developer",
        "no turn of it can be taken since {since}; {again} (tries so far: {times}): {message}",
        (
            "correct the code or the data that the message names, and deploy  # it then goes on by itself",
            "durable replay {id} --module MODULE --pdb  # see it fail on this machine",
            "durable terminate {id} --reason WHY  # give it up, nothing is compensated",
        ),
    ),
    "kills_workers": Kind(
        "needs_review", "developer",
        "{times} workers died while they held it; {again}",
        (
            "durable doctor  # which workers died; then read their logs",
            "durable pause {id} --reason WHY  # keep it from the next worker",
            "durable terminate {id} --reason WHY  # give it up, nothing is compensated",
        ),
    ),
    "run_paused": Kind(
        "blocked", "operator", "it was paused {since}{by}{because}", ("durable resume {id}  # let it go on",)
    ),
    "cancel_requested": Kind(
        "waiting", "nobody",
        "it was asked to stop {since}{by}{because}; {delivered}",
        ("durable terminate {run} --reason WHY  # end the workflow without its clean-up", _LOOK, "durable job show {job_id}  # everything recorded about it"),
    ),
    "delayed": Kind("waiting", "nobody", "it may not run before {until}"),
    "ready": Kind(
        "runnable", "nobody", "it is ready since {since} and waits for a worker of queue {queue!r} to take it",
        ("durable doctor  # whether the workers keep up",),
    ),
    "in_turn": Kind("runnable", "nobody", "worker {worker} holds it and runs its code"),
    "no_worker_for_workflow": Kind(
        "blocked", "operator", "no live worker of queue {queue!r} has workflow {workflow!r} version {version}",
        ("durable-worker MODULE  # start a worker that has it; MODULE defines the workflow", "durable doctor  # which workers are alive"),
    ),
    "no_worker_for_build": Kind(
        "blocked", "operator", "it is pinned to build {build}, and no live worker of that build serves queue {queue!r}",
        ("durable-worker --build {build} MODULE  # start one", "durable move {id} --build BUILD  # or have another build take it"),
    ),
    "worker_silent": Kind(
        "waiting", "nobody",
        "worker {worker} has it and was last heard of {since}; {lease}",
        ("durable doctor  # whether that worker is alive, and whether another is there",),
    ),
    "message_waiting": Kind("runnable", "nobody", "messages that it has not applied yet: {count}, the oldest ({type}) of {since}"),
    "update_waiting": Kind(
        "waiting", "nobody", "update {name!r} ({update_id}) was {stage} {since} and has not ended", (_LOOK,)
    ),
    "signal": Kind(
        "waiting", "sender", "waits for signal {name!r} since {since}{until_text}", ("durable signal {id} {name} JSON  # send it",)
    ),
    "timer": Kind("waiting", "nobody", "{name} ends at {until}"),
    "condition": Kind(
        "waiting", "sender", "waits since {since} until {name} becomes true{until_text}",
        ("durable query {id} QUERY  # look at its state", "durable signal {id} NAME JSON  # or send what changes it"),
    ),
    "child": Kind("waiting", "nobody", "waits for child {child_id!r} ({workflow}), which {state}", ("durable explain {child_id}  # why that one stands",)),
    "local_activity": Kind("runnable", "nobody", "local activity {name} runs in the worker that holds the run"),
    "dependencies": Kind("waiting", "nobody", "waits for the end of {steps}", ("durable explain {id} --step {step}  # why the first of them stands",)),
    "dependency_failed": Kind("done", "nobody", "it was {status} because step {step!r} {ended}", ("durable explain {id} --step {step}  # why that one did",)),
    "completion_awaited": Kind(
        "waiting", "sender", "waits since {since} for somebody to complete it{until_text}",
        ("durable dag complete-step {id} {step} JSON  # complete it with this result", "durable dag cancel-step {id} {step} --reason WHY  # or cancel it"),
    ),
    "steps_failed": Kind(
        "needs_review", "operator", "everything else has ended, and it waits for a decision about failed steps since {since}: {name}",
        ("durable dag steps {id}  # how each step stands", "durable dag retry-step {id} STEP --reason WHY  # run it again, and what depends on it", "durable dag give-up {id} --reason WHY  # let the run fail"),
    ),
    "halted": Kind(
        "needs_review", "operator", "step {name} has halted the run since {since}: nothing starts until somebody resumes it",
        ("durable dag steps {id}  # why it has halted", "durable dag resume {id}  # let the step complete and the others go on", "durable cancel {id} --reason WHY  # or undo what was done"),
    ),
    "executing": Kind(
        "runnable", "nobody", "worker {worker} executes attempt {attempt} of {most}, begun {since}{heartbeat}{bound}",
    ),
    "completed_elsewhere": Kind(
        "waiting", "sender", "attempt {attempt} ended without an outcome: whoever has its token completes it{bound}",
        ("durable complete TOKEN JSON  # with the token that was given away", *_ACTIVITY[1:]),
    ),
    "scheduled": Kind("waiting", "nobody", "it is scheduled for {until}", _JOB),
    "retry": Kind(
        "waiting", "nobody", "attempt {attempt} of {most} failed ({error}); the next one is due at {until}", (*_ACTIVITY, *_JOB)
    ),
    "job_paused": Kind("blocked", "operator", "it was paused {since}{by}{because}", ("durable activity resume {id} {seq}  # let it go on",)),
    "exhausted": Kind("needs_review", "operator", "its last attempt ({attempt} of {most}) failed, and it waits for a decision since {since}: {error}", _ACTIVITY),
    "unknown_activity": Kind(
        "blocked", "operator", "no worker that took it knows the activity: {message}",
        ("durable-worker MODULE  # start a worker that has it; MODULE defines the activity", "durable doctor  # which workers are alive"),
    ),
    "no_worker": Kind(
        "blocked", "operator", "no live worker serves queue {queue!r}",
        ("durable-worker MODULE --queue {queue}=10  # start one", "durable doctor  # which workers are alive"),
    ),
    "queue_paused": Kind("blocked", "operator", "queue {queue!r} was paused {since}{because}", ("durable queue resume {queue}  # let its jobs start", _QUEUE)),
    "claim_disabled": Kind("blocked", "operator", "queue {queue!r} has 0 slots in each worker: nothing is claimed", ("durable queue set {queue} --slots none  # claim again", _QUEUE)),
    "global_limit": Kind("waiting", "nobody", "the limit of queue {queue!r} is reached: {running} of {limit} run", (_QUEUE, "durable queue set {queue} --global N  # raise it")),
    "rate_limit": Kind("waiting", "nobody", "the rate of queue {queue!r}, {limit:g} per {period_s:g} s, is used up until {until}", (_QUEUE, "durable queue set {queue} --rate N/60s  # raise it")),
    "key_limit": Kind("waiting", "nobody", "the limit of key {key!r} is reached: {running} of {limit} run", (_QUEUE, "durable queue set {queue} --per-key N  # raise it")),
    "key_rate_limit": Kind("waiting", "nobody", "the rate of key {key!r}, {limit:g} per {period_s:g} s, is used up until {until}", (_QUEUE,)),
    "serial_predecessor": Kind("waiting", "nobody", "job {job} of the same serial key {key!r} comes first; it is {state}", ("durable explain {job}  # why that one stands",)),
    "no_free_slot": Kind("runnable", "nobody", "only slots are missing: {before} before it in queue {queue!r}, due since {since}", (_QUEUE,)),
    "schedule_paused": Kind("blocked", "operator", "it was paused{because}", ("durable schedule resume {id}  # go on with the next slot", "durable schedule trigger {id}  # run it once now")),
    "schedule_next": Kind("waiting", "nobody", "the next slot is {until}", ("durable schedule trigger {id}  # run it now",)),
    "schedule_over": Kind("done", "nobody", "no slot is to come: its times have an end", ("durable schedule show {id}  # its times",)),
    "slot_skipped": Kind(
        "waiting", "nobody", "the slot of {since} was skipped: {reason} (overlap={overlap}){running}",
        ("durable explain {open}  # why the run before it is still open", "durable schedule trigger {id} --overlap allow  # run it beside the open one"),
    ),
    "slot_limit": Kind(
        "waiting", "nobody", "the slot of {since} was skipped: {reason} (overlap={overlap}){running}",
        ("durable explain {open}  # why the run before it is still open",),
    ),
    "slot_missed": Kind("waiting", "operator", "the slot of {since} was missed: {reason}", ("durable schedule backfill {id} --from TIME --to TIME  # run what was missed",)),
    "slot_waits": Kind("waiting", "nobody", "the slot of {since} waits: {reason}{running}", ("durable explain {open}  # why the run before it is still open",)),
    "no_worker_for_schedules": Kind("blocked", "operator", "no live worker looks after schedules; slots are made up for when one does", ("durable-worker MODULE  # start one", "durable doctor  # which workers are alive")),
}  # fmt: skip


def cause(
    code: CauseCode,
    now_us: int,
    *,
    about: str = "",
    line: str | None = None,
    causes: tuple[Cause, ...] = (),
    stands: OperatorStatus | None = None,
    **facts: Any,
) -> Cause:
    """One cause, in words. `facts` are what its sentence and steps name, times as `..._us`; `stands`: its status, where that is not always the list's."""
    kind = KINDS[code]
    words = _words(facts, now_us)
    typed = {name: shlex.quote(it) if isinstance(it, str) else it for name, it in words.items()}
    steps = tuple(_next_step(step, typed) for step in kind.steps if _is_whole(step, typed))
    return Cause(
        code, stands or kind.status, kind.sentence.format_map(words), kind.who, steps, about, line or None,
        moment(facts.get("since_us")), moment(facts.get("until_us")), facts, causes,
    )  # fmt: skip


def _next_step(step: str, words: Mapping[str, Any]) -> NextStep:
    """From `command  # remark`, as the list has it."""
    command, _, remark = step.format_map(words).partition("  # ")
    return NextStep(command, remark)


def worst(causes: tuple[Cause, ...], otherwise: OperatorStatus = "runnable") -> OperatorStatus:
    """The status of a thing with these causes: what most needs somebody decides."""
    if not causes:
        return otherwise
    return max(causes, key=lambda it: _RANK[it.status]).status


def by_urgency(causes: tuple[Cause, ...]) -> tuple[Cause, ...]:
    """Those that need somebody first; else in the order in which they were found."""
    return tuple(sorted(causes, key=lambda it: -_RANK[it.status]))


def moment(us: int | None) -> datetime | None:
    """A time of the database, in UTC."""
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _words(facts: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    """The facts as a sentence shows them."""
    words = {
        name: f": {value}" if name == "because" and value else value
        for name, value in facts.items()
        if value is not None
    }
    for name in [name for name in words if name.endswith("_us")]:
        words[name.removesuffix("_us")] = told(facts[name], now_us)
    until = words.get("until")
    defaults = {"because": "", "by": "", "until": "some time", "since": "some time ago"}
    return {**defaults, "until_text": f", at the latest until {until}" if until else "", **words}


def _is_whole(step: str, words: Mapping[str, Any]) -> bool:
    try:
        step.format_map(words)
    except KeyError:
        return False
    return True


def told(us: int, now_us: int) -> str:
    """A time, and how far it is: `14:02:11Z (12m 4s ago)`; with the date unless it is today's."""
    at, now = _EPOCH + timedelta(microseconds=us), _EPOCH + timedelta(microseconds=now_us)
    shown = at.strftime("%H:%M:%SZ" if at.date() == now.date() else "%Y-%m-%d %H:%M:%SZ")
    away_s = (us - now_us) / 1e6
    if us >= 253_370_764_800_000_000:
        return "the end of time"
    return f"{shown} ({length(-away_s)} ago)" if away_s < 0 else f"{shown} (in {length(away_s)})"


def length(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    units = [
        f"{n}{unit}" for n, unit in ((days, "d"), (hour, "h"), (minute, "m"), (second, "s")) if n
    ]
    return " ".join(units[:2]) or "0s"


@dataclass(frozen=True, slots=True)
class Dependency:
    """One thing that is waited for, as it is now: an activity, timer, child, signal, condition, update or step. `seq` is the event that asked for it."""

    kind: str
    name: str
    state: str
    status: OperatorStatus
    seq: int | None = None
    line: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskStand:
    """A task of the workflow's code that has not ended, with the author's lines where it stands, outermost first."""

    task: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a workflow, step, job or schedule stands as it does, at one moment (`at`, by the database's clock).

    `id` is that of the workflow, job or schedule, `name` the workflow, step, activity or what the schedule starts.

    `status` is what an operator wants to know first: needs_review, blocked, waiting, runnable or done; it looks at queues, workers and children too, so it
    may say blocked where a list of runs, which knows the run's row alone, says waiting. `causes`: all of them, those that need somebody first.
    `dependencies`: what is waited for; `unlisted` counts those left out. `tasks`: where the code stands, and `tasks_from` who says so: worker (it holds
    the run), replay (of the history, by this process's code), or recorded (the lines of its last turn, in `dependencies`).
    """

    kind: Literal["workflow", "step", "job", "schedule"]
    id: str
    name: str
    status: OperatorStatus
    causes: tuple[Cause, ...]
    at: datetime
    dependencies: tuple[Dependency, ...] = ()
    unlisted: int = 0
    tasks: tuple[TaskStand, ...] = ()
    tasks_from: Literal["worker", "replay", "recorded"] = "recorded"

    @property
    def next_steps(self) -> tuple[NextStep, ...]:
        """The commands that are legal now, those of the most urgent cause first, each once."""
        own = [step for it in self.causes for step in it.next_steps]
        nested = [step for it in self.causes for below in it.causes for step in below.next_steps]
        by_command = {step.command: step for step in reversed([*own, *nested])}
        return tuple(reversed(by_command.values()))
