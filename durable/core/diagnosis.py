"""From facts to an explanation: why a run, step, job or schedule stands as it does. Pure: what the database knew at one moment in, causes out.

Everything that holds is said, not only the first thing: a run may be paused, wait for a signal and have a message, and an operator who lifts one of
these wants to know of the others. The order is that of urgency, and the most urgent cause gives the status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from durable.core import schedule_policy
from durable.core.causes import (
    CODES,
    Cause,
    CauseCode,
    Dependency,
    Explanation,
    OperatorStatus,
    by_urgency,
    cause,
    length,
    moment,
    told,
    worst,
)
from durable.core.facts import (
    JobFacts,
    ReasonFacts,
    RunFacts,
    ScheduleFacts,
    SlotFacts,
    StepFacts,
    WorkerFacts,
)
from durable.core.schedule_times import Times, chained, jitter_us
from durable.core.terminal_causes import JOB_CAUSE_TEXTS, RUN_CAUSE_TEXTS

DAG = "durable.dag"
"""The workflow that runs DAGs: the ids of its activities are the names of its steps."""

_OPEN = ("pending", "running", "halted")
SHOWN_STEPS = 10
_CODE: Mapping[str, CauseCode] = {code: code for code in CODES}
_REVIEWS: Mapping[str, CauseCode] = {
    "nondeterminism": "nondeterminism", "kills_workers": "kills_workers", "error": "turn_fails",
}  # fmt: skip
_WAITS: Mapping[str, CauseCode] = {
    "signal": "signal", "condition": "condition", "local activity": "local_activity", "step": "completion_awaited",
    "operator": "steps_failed", "halt": "halted",
}  # fmt: skip
_SKIPS: Mapping[tuple[str, str | None], CauseCode] = {
    ("skipped", schedule_policy.OPEN): "slot_skipped", ("skipped", schedule_policy.NO_MORE_WAIT): "slot_limit",
}  # fmt: skip
_TOLD_BY_ROWS = frozenset({"activity", "timer", "child", "more"})
"""Waits that jobs and children say more of."""
_STATES: Mapping[OperatorStatus, str] = {
    "needs_review": "needs review", "blocked": "is blocked", "waiting": "waits", "runnable": "runs", "done": "has ended",
}  # fmt: skip
_ENDED = {"failed": "failed", "cancelled": "was cancelled", "skipped": "was skipped"}
_SLOTS: Mapping[str, CauseCode] = {"missed": "slot_missed", "buffered": "slot_waits"}


def explain_run(run: RunFacts) -> Explanation:
    """Why a run stands as it does."""
    causes, dependencies = _of_run(run)
    at = moment(run.now_us)
    assert at is not None
    unlisted = run.job_count - len(run.jobs) + run.child_count - len(run.children)
    return Explanation(
        "workflow", run.workflow_id, run.workflow, worst(causes), causes, at, dependencies, unlisted
    )


def explain_job(job: JobFacts, now_us: int) -> Explanation:
    """Why a standalone job stands as it does."""
    causes = by_urgency(tuple(_of_job(job, now_us)))
    at = moment(now_us)
    assert at is not None
    return Explanation("job", job.job_id, job.name, worst(causes), causes, at)


def explain_step(
    run: RunFacts, step: str, table: Mapping[str, StepFacts] | None = None
) -> Explanation | None:
    """Why a step stands as it does: of a DAG by its name (`table` has all its steps), else a pending activity by the id of its call, or its event. None: there is none."""
    steps = table or {}
    known = steps.get(step)
    found = tuple(_of_call(run, step, known))
    if known is None and not found:
        return None
    above = () if known is None else tuple(_upstream(run, known, steps))
    causes: tuple[Cause, ...] = ()
    if known is not None:
        causes = tuple(_of_step(run, step, known, steps, above))
    causes += tuple(it for each in found for it in each.causes)
    if run.status == "running" and (known is None or known.status in _OPEN):
        causes = (*_above(run), *causes)
        causes = causes or (_in_turn(run),)
    at = moment(run.now_us)
    assert at is not None
    return Explanation(
        "step", run.workflow_id, step, worst(causes), by_urgency(causes), at, (*above, *found)
    )  # fmt: skip


def awaited_steps(step: str, table: Mapping[str, StepFacts]) -> list[str]:
    """The first of the steps that have to end before it can go on: whose calls belong to its facts."""
    known = table.get(step)
    names = () if known is None else (*known.upstream, *known.added)
    return [it for it in names if it in table and table[it].status in _OPEN][:SHOWN_STEPS]


def _of_call(run: RunFacts, step: str, known: StepFacts | None) -> Iterator[Dependency]:
    """The activities, children and waits of one step; without a DAG the facts hold no others."""
    for each in run.jobs:
        if each.kind == "activity" and (known is None or _is_call(each.call_id or "", step)):
            yield _activity(each, run)
    for child in run.children:
        called = child.workflow_id.removeprefix(f"{run.workflow_id}/")
        if known is None or _is_call(called, step):
            yield _child(child, run.now_us, None)
    for wait in run.waiting_on or ():
        signal = (
            wait.get("kind") == "signal" and known is not None and known.signal == wait.get("name")
        )
        if signal or (wait.get("kind") in ("step", "halt") and wait.get("name") == step):
            yield from _wait(wait, run)


def _is_call(call_id: str, step: str) -> bool:
    """Whether it is the step's call, that of an element of its map, or a later try."""
    return call_id == step or call_id.startswith((f"{step}[", f"{step}#"))


def explain_schedule(schedule: ScheduleFacts) -> Explanation:
    """Why a schedule stands as it does."""
    causes = by_urgency(tuple(_of_schedule(schedule)))
    at = moment(schedule.now_us)
    assert at is not None
    return Explanation("schedule", schedule.schedule_id, schedule.target, worst(causes), causes, at)


# -- a run --------------------------------------------------------------------------------------------------------------


def _of_run(run: RunFacts) -> tuple[tuple[Cause, ...], tuple[Dependency, ...]]:
    if run.status != "running":
        return (_ended_run(run),), ()
    dependencies = tuple(_dependencies(run))
    causes = (*_above(run), *(it for found in dependencies for it in found.causes))
    if not causes:
        causes = (_in_turn(run),)
    return by_urgency(causes), dependencies


def _in_turn(run: RunFacts) -> Cause:
    return cause("in_turn", run.now_us, worker=run.owner.name if run.owner else "?")


def _ended_run(run: RunFacts) -> Cause:
    last = run.last or {}
    because = _failure(last.get("failure")) or last.get("reason")
    text = "" if run.cause is None else RUN_CAUSE_TEXTS[run.cause]
    again = run.workflow_id if run.status in ("failed", "cancelled", "terminated") else None
    more = {
        "run": run.workflow_id,
        "retried": again,
        "continued": run.workflow_id if run.status == "continued" else None,
    }
    return _ended(run.now_us, run.status, run.closed_us, text, because, cause=run.cause, **more)


def _ended(
    now_us: int, status: str, since_us: int | None, text: str, because: str | None, **more: Any
) -> Cause:
    when = "" if since_us is None else f" {told(since_us, now_us)}"
    return cause(
        "ended", now_us, status=status, since_us=since_us, when=when, text=f": {text}" if text else "", because=because, **more
    )  # fmt: skip


def _above(run: RunFacts) -> Iterator[Cause]:
    """What holds for the run whatever its code waits for."""
    now = run.now_us
    if run.paused is not None:
        yield cause(
            "run_paused", now, id=run.workflow_id, since_us=run.paused_us,
            by=_by(run.paused.get("actor")), because=run.paused.get("reason"),
        )  # fmt: skip
    if run.review is not None:
        yield from _reviewed(run, run.review)
    elif run.paused is None and run.delayed_us is not None:
        yield cause("delayed", now, until_us=run.delayed_us)
    if run.owner is not None and run.owner.is_silent(now):
        yield _silent(run.owner, now)
    if run.owner is None or run.owner.is_silent(now):
        yield from _unserved(run)
    yield from _cancelled(run)
    yield from _messages(run)
    if run.ready_us is not None:
        yield cause("ready", now, queue=run.queue, since_us=run.ready_us)


def _reviewed(run: RunFacts, review: Mapping[str, Any]) -> Iterator[Cause]:
    kind = review.get("kind")
    if kind == "unknown_workflow":
        if run.service.build:
            yield cause("delayed", run.now_us, until_us=run.delayed_us)
        elif not run.service.queue or run.service.workflow:
            pass  # `_unserved` says what is missing
        elif run.paused is not None:
            yield _no_workflow(run)
        return
    message = str((review.get("failure") or review).get("message", ""))
    message = message.partition("\n  The run is parked")[0]  # what to do is said by the steps
    until = None if run.paused is not None else run.delayed_us or run.ready_us
    again = (
        "a worker is trying it again" if run.owner is not None else "tried again when it is resumed"
    )
    if until is not None:
        again = f"tried again at {told(until, run.now_us)}"
    yield cause(
        _REVIEWS.get(str(kind), "turn_fails"), run.now_us, id=run.workflow_id, times=review.get("times", 1), since_us=run.review_us, until_us=until,
        again=again, message=message.strip(),
    )  # fmt: skip


def _unserved(run: RunFacts) -> Iterator[Cause]:
    """What is missing for anybody to take it: a worker of the queue, with the workflow, of the build."""
    if run.paused is not None:
        return
    if not run.service.queue:
        yield cause("no_worker", run.now_us, queue=run.queue)
    elif not run.service.workflow:
        yield _no_workflow(run)
    elif not run.service.build:
        yield cause(
            "no_worker_for_build", run.now_us, id=run.workflow_id, build=run.build, queue=run.queue
        )


def _no_workflow(run: RunFacts) -> Cause:
    return cause(
        "no_worker_for_workflow", run.now_us, queue=run.queue, workflow=run.workflow, version=run.version
    )  # fmt: skip


def _silent(worker: WorkerFacts, now_us: int, about: str = "", line: str | None = None) -> Cause:
    lapses = told(worker.lease_us, now_us)
    lease = f"another takes it over when its lease lapses at {lapses}"
    if worker.lease_us <= now_us:
        lease = f"its lease lapsed at {lapses}, and any other may take it over"
    return cause(
        "worker_silent", now_us, about=about, line=line, worker=worker.name, since_us=worker.beat_us, until_us=worker.lease_us, lease=lease
    )  # fmt: skip


def _cancelled(run: RunFacts) -> Iterator[Cause]:
    unread = next((it for it in run.messages if it.type == "CancelRequested"), None)
    if run.cancel_us is None and unread is None:
        return
    asked = run.cancel
    yield cause(
        "cancel_requested", run.now_us, run=run.workflow_id,
        since_us=asked.at_us if asked else (unread.at_us if unread else run.cancel_us),
        by=_by(asked.actor if asked else None),
        because=asked.reason if asked else unread and unread.reason,
        delivered="its code has not seen that yet" if unread else "its code cleans up",
    )  # fmt: skip


def _messages(run: RunFacts) -> Iterator[Cause]:
    if run.messages:
        first = run.messages[0]
        many = "1,000 or more" if run.message_count >= 1000 else run.message_count
        yield cause(
            "message_waiting", run.now_us, count=many, type=first.type, since_us=first.at_us
        )


# -- what its code waits for --------------------------------------------------------------------------------------------


def _dependencies(run: RunFacts) -> Iterator[Dependency]:
    waits = list(run.waiting_on or ())
    deadlines = {it.get("seq") for it in waits if it.get("kind") not in _TOLD_BY_ROWS}
    lines = {it["seq"]: it.get("line") for it in waits if it.get("seq")}
    for job in run.jobs:
        if job.kind == "timer" and job.seq not in deadlines:
            yield _timer(job, run.now_us)
        elif job.kind == "activity":
            yield _activity(job, run)
    for wait in waits:
        yield from _wait(wait, run)
    for child in run.children:
        yield _child(child, run.now_us, lines.get(child.parent_seq))
    for update in run.updates:
        found = cause(
            "update_waiting", run.now_us, run=run.workflow_id, name=update.name,
            update_id=update.update_id, stage=update.status, since_us=update.at_us,
        )  # fmt: skip
        yield Dependency(
            "update", update.name, update.status, found.status, since=found.since, causes=(found,)
        )


def _timer(job: JobFacts, now_us: int) -> Dependency:
    found = cause(
        "timer", now_us, line=job.line, name=f"{job.name or 'timer'} #{job.seq}", until_us=job.scheduled_us
    )  # fmt: skip
    held = job.state == "paused"
    return Dependency(
        "timer", job.name, "paused" if held else "started", found.status, job.seq, job.line,
        moment(job.created_us), found.until, () if held else (found,),
    )  # fmt: skip


def _activity(job: JobFacts, run: RunFacts) -> Dependency:
    causes = tuple(_of_job(job, run.now_us, run))
    until = next((it.until for it in causes if it.until is not None), None)
    return Dependency(
        "activity", _step_name(job, run), job.state, worst(causes), job.seq, _line(job.line, run), moment(job.created_us), until, causes
    )  # fmt: skip


def _wait(wait: Mapping[str, Any], run: RunFacts) -> Iterator[Dependency]:
    kind, name, line = str(wait.get("kind")), str(wait.get("name")), _line(wait.get("line"), run)
    if kind in _TOLD_BY_ROWS:
        return
    if kind == "signal" and any(it.name == name for it in run.messages):
        yield Dependency(kind, name, "arrived", "runnable", wait.get("seq"), line)
        return
    found = cause(
        _WAITS.get(kind, "condition"), run.now_us, about=f"step {name}" if kind == "step" else "", line=line, id=run.workflow_id, name=name, step=name,
        since_us=wait.get("since_us"), until_us=wait.get("until_us"),
    )  # fmt: skip
    yield Dependency(
        kind, name, "awaited", found.status, wait.get("seq"), line, found.since, found.until, (found,)
    )  # fmt: skip


def _child(child: RunFacts, now_us: int, line: str | None) -> Dependency:
    causes, _ = _of_run(child)
    status = worst(causes)
    held = status in ("blocked", "needs_review")
    found = cause(
        "child", now_us, line=line, causes=causes, stands="blocked" if held else "waiting", child_id=child.workflow_id,
        workflow=child.workflow, state=_STATES[status], since_us=child.created_us,
    )  # fmt: skip
    return Dependency(
        "child", child.workflow_id, child.status, status, child.parent_seq, line, found.since, None, (found,)
    )  # fmt: skip


# -- an activity or a job -----------------------------------------------------------------------------------------------


def _line(line: str | None, run: RunFacts) -> str | None:
    """The author's line; the lines of a DAG are those of its interpreter, and tell nobody anything."""
    return None if run.workflow == DAG else line


def _step_name(job: JobFacts, run: RunFacts) -> str:
    return f"{job.call_id} ({job.name})" if run.workflow == DAG and job.call_id else job.name


def _of_job(job: JobFacts, now_us: int, run: RunFacts | None = None) -> Iterator[Cause]:
    """Everything that keeps it; for an activity with its workflow's id and the number of its event, for the commands."""
    about, names = "", {"id": job.job_id, "job_id": job.job_id}
    if run is not None:
        word = "step" if run.workflow == DAG else "activity"
        about = f"{word} {_step_name(job, run)} #{job.seq}"
        names = {"id": run.workflow_id, "run": run.workflow_id, "seq": str(job.seq)}
    line = job.line if run is None else _line(job.line, run)
    given: dict[str, Any] = {"about": about, "line": line, **names}
    if job.finished_us is not None:
        yield _ended_job(job, now_us)
        return
    if job.cancel_us is not None:
        yield cause(
            "cancel_requested", now_us, **given, since_us=job.cancel_us, because=(job.note or {}).get("reason"),
            delivered="its attempt has not ended yet",
        )  # fmt: skip
    if job.state == "executing":
        yield _executing(job, now_us, given)
    elif job.state == "waiting":
        yield cause("completed_elsewhere", now_us, **given, attempt=job.attempt, bound=_bound(job, now_us))  # fmt: skip
    elif job.state == "paused":
        yield from _held(job, now_us, given)
    else:
        for each in job.reasons:
            yield _kept(job, each, now_us, given)


def _ended_job(job: JobFacts, now_us: int) -> Cause:
    because = None if job.state == "completed" else _failure(job.failure)
    text = "" if job.cause is None else JOB_CAUSE_TEXTS[job.cause]
    again = None if job.state == "completed" else job.job_id
    return _ended(
        now_us, job.state, job.finished_us, text, because, cause=job.cause, job_id=job.job_id, retried_job=again
    )  # fmt: skip


def _executing(job: JobFacts, now_us: int, given: Mapping[str, Any]) -> Cause:
    worker = job.worker
    if worker is not None and worker.is_silent(now_us):
        return _silent(worker, now_us, given["about"], given["line"])
    beat = "" if job.beat_us is None else f", last heartbeat {told(job.beat_us, now_us)}"
    if job.heartbeat is not None:
        beat += f" with {json.dumps(job.heartbeat, ensure_ascii=False)[:80]}"
    return cause(
        "executing", now_us, **given, worker=worker.name if worker else "?", attempt=job.attempt, most=_most(job),
        since_us=job.begun_us, heartbeat=beat, bound=_bound(job, now_us),
    )  # fmt: skip


def _held(job: JobFacts, now_us: int, given: Mapping[str, Any]) -> Iterator[Cause]:
    """What is paused with its run is said once, of the run."""
    held = job.paused or {}
    since = held.get("at_us")
    if held.get("kind") == "exhausted":
        yield cause("exhausted", now_us, **given, since_us=since, attempt=job.attempt, most=_most(job), error=_failure(job.failure) or "?")  # fmt: skip
    elif held.get("kind") != "run":
        yield cause("job_paused", now_us, **given, since_us=since, by=_by(held.get("actor")), because=held.get("reason"))  # fmt: skip


def _kept(job: JobFacts, kept: ReasonFacts, now_us: int, given: Mapping[str, Any]) -> Cause:
    facts = {
        "queue": job.queue, "until_us": kept.until_us, "attempt": job.attempt, "most": _most(job), **given, **kept.facts,
    }  # fmt: skip
    if kept.reason == "retry":
        facts["error"] = _failure(job.failure) or "?"
    elif kept.reason == "no_free_slot":
        least = facts.pop("before_at_least")
        facts |= {"before": f"at least {least} are" if least else "nothing is", "since_us": job.scheduled_us}  # fmt: skip
    elif kept.reason == "queue_paused":
        facts["because"] = facts.pop("why", None)
    return cause(_CODE[kept.reason], now_us, **facts)


def _most(job: JobFacts) -> str:
    return "any number" if job.max_attempts is None else str(job.max_attempts)


def _bound(job: JobFacts, now_us: int) -> str:
    if job.deadline_us is None:
        return ""
    left_s = (job.deadline_us - now_us) / 1e6
    return (
        f"; its {job.deadline_kind} timeout is {f'in {length(left_s)}' if left_s > 0 else 'over'}"
    )


# -- a step of a DAG ----------------------------------------------------------------------------------------------------


def _of_step(
    run: RunFacts,
    name: str,
    step: StepFacts,
    table: Mapping[str, StepFacts],
    above: Sequence[Dependency] = (),
) -> Iterator[Cause]:
    """Its own causes; those of the steps that it waits for (`above`) are told with them."""
    if step.status in _OPEN:
        if awaited_steps(name, table):
            yield _waits_for_steps(run, name, table, above)
    elif step.cause is not None:
        ended = table[step.cause].status if step.cause in table else ""
        yield cause(
            "dependency_failed", run.now_us, about=f"step {name}", id=run.workflow_id, status=step.status, step=step.cause,
            ended=_ENDED.get(ended, "ended"),
        )  # fmt: skip
    else:
        failed = name if step.status == "failed" else None
        yield _ended(
            run.now_us, step.status, None, "", _failure(step.failure), id=run.workflow_id, failed_step=failed
        )  # fmt: skip


def _waits_for_steps(
    run: RunFacts, name: str, table: Mapping[str, StepFacts], above: Sequence[Dependency]
) -> Cause:
    awaited = awaited_steps(name, table)
    names = (*table[name].upstream, *table[name].added)
    count = sum(table[it].status in _OPEN for it in names if it in table)
    more = f" and {count - len(awaited)} more" if count > len(awaited) else ""
    nested = tuple(it for each in above for it in each.causes)
    held = worst(nested) in ("blocked", "needs_review")
    return cause(
        "dependencies", run.now_us, about=f"step {name}", id=run.workflow_id, count=count, step=awaited[0], causes=nested,
        stands="blocked" if held else "waiting", steps=", ".join(f"{it} ({table[it].status})" for it in awaited) + more,
    )  # fmt: skip


def _upstream(
    run: RunFacts, step: StepFacts, table: Mapping[str, StepFacts]
) -> Iterator[Dependency]:
    """The steps that it depends on or has added; those that have not ended with their own causes."""
    for name in (*step.upstream, *step.added):
        known = table.get(name)
        if known is None or known.status not in _OPEN:
            yield Dependency("step", name, "unknown" if known is None else known.status, "done")
            continue
        called = [it for each in _of_call(run, name, known) for it in each.causes]
        causes = (*_of_step(run, name, known, table), *called)
        yield Dependency("step", name, known.status, worst(causes), causes=causes)


# -- a schedule ---------------------------------------------------------------------------------------------------------


def _of_schedule(it: ScheduleFacts) -> Iterator[Cause]:
    now, schedule_id = it.now_us, it.schedule_id
    if it.worker is None or it.worker.is_silent(now):
        yield cause("no_worker_for_schedules", now)
    for slot in it.slots:
        yield from _slot(slot, it)
        if slot.decision not in ("buffered", "pending"):
            break  # what was before the last decision is over
    if it.paused:
        yield cause("schedule_paused", now, id=schedule_id, because=it.note)
        return
    coming = _next_us(it)
    if coming is None:
        yield cause("schedule_over", now, id=schedule_id)
    else:
        yield cause("schedule_next", now, id=schedule_id, until_us=coming)


def _slot(slot: SlotFacts, it: ScheduleFacts) -> Iterator[Cause]:
    code = _SLOTS.get(slot.decision) or _SKIPS.get((slot.decision, slot.reason))
    if code is not None:
        running = f": {it.open[0]} is open" if it.open else ", and it has ended since"
        yield cause(
            code, it.now_us, id=it.schedule_id, since_us=slot.slot_us, reason=slot.reason or "", overlap=it.overlap,
            open=it.open[0] if it.open else None, running=running,
        )  # fmt: skip


def _next_us(it: ScheduleFacts) -> int | None:
    times = Times.from_body(dict(it.spec))
    before = tuple((Times.from_body(dict(old["spec"])), old["until_us"]) for old in it.before)
    following = chained(before, times, it.cursor_us)
    slot = next(following, None)
    if slot is None:
        return None
    return slot + jitter_us(times, it.schedule_id, slot, next(following, None))


# -- words --------------------------------------------------------------------------------------------------------------


def _by(actor: Any) -> str:
    if actor is None:
        return ""
    return f" by {actor if isinstance(actor, str) else json.dumps(actor, ensure_ascii=False)}"


def _failure(failure: Any) -> str:
    """An encoded failure and its causes in one line."""
    said: list[str] = []
    while isinstance(failure, Mapping) and len(said) < 5:
        kind = str(failure.get("type", "")).rpartition(":")[2]
        message = str(failure.get("message", "")).strip().partition("\n")[0]
        said.append(f"{kind}: {message.removesuffix('; the cause says why')}"[:300])
        failure = failure.get("cause")
    return ", because ".join(said)
