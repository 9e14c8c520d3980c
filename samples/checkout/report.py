"""What the database says about a demo, through durable's documented views, and how it is shown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from . import payments
from .shop import transaction

STEPS = [
    "ActivityCompleted",
    "ActivityFailed",
    "ActivityTimedOut",
    "ActivityCancelled",
    "TimerFired",
    "SignalReceived",
]
CLOSING = STEPS[:4]

ENDS = "select workflow_id, status from durable.run_list where starts_with(workflow_id, %s)"
OPEN = "select workflow_id from durable.run_list where starts_with(workflow_id, %s) and status = 'running'"
HELD = """
select w.name, r.workflow_id from durable.run_list r join durable.workers w on w.worker_id = r.owner
 where starts_with(r.workflow_id, %s) and r.status = 'running'
"""
ALIVE = """
select count(*) from durable.workers where name = any (%s) and state = 'alive' and started_at >= %s
"""
TOTALS = """
select count(*) filter (where type = any (%(steps)s)),
       count(*) filter (where type = any (%(closing)s)),
       count(*) filter (where type = any (%(closing)s) and (body ->> 'attempt')::int > 1),
       extract(epoch from max(at) - %(began)s)::float8
  from durable.event_list where starts_with(workflow_id, %(prefix)s)
"""
HISTORY = "select seq, type, at, body, payload::text from durable.event_list where workflow_id = %s order by seq"
LAST_EVENTS = """
select workflow_id, max(at), count(*) from durable.event_list where workflow_id = any (%s) group by workflow_id
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that got SIGKILL, when (by the database's clock), and the ids of the runs that it held."""

    worker: str
    at: datetime
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    seq: int
    type: str
    at: datetime
    body: dict[str, Any]
    payload: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What came out. `steps` are activities, timers and signals; `takeovers` are runs that ended though their worker was killed."""

    orders: int
    completed: int
    compensated: int
    activities: int
    activities_retried: int
    kills: int
    takeovers: int
    steps: int
    seconds: float
    faults: dict[str, int]
    violations: list[str]
    survivor: str | None
    history: list[Event] = field(repr=False)
    killed: list[Kill] = field(repr=False)

    @property
    def adds_up(self) -> bool:
        return not self.violations

    @property
    def steps_per_s(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        told = {**asdict(self), "steps_per_s": round(self.steps_per_s, 1), "adds_up": self.adds_up}
        loaded: dict[str, Any] = json.loads(json.dumps(told, default=str))
        return loaded


# -- reading ----------------------------------------------------------------------------------------------------------


def query(statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
    with transaction() as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


def database_now() -> datetime:
    now: datetime = query("select durable.now()")[0][0]
    return now


def run_ends(prefix: str) -> dict[str, str]:
    """The status of every run, by workflow id."""
    return dict(query(ENDS, (prefix,)))


def ends(prefix: str) -> dict[str, int]:
    """How many runs have ended, by status."""
    counts: dict[str, int] = defaultdict(int)
    for status in run_ends(prefix).values():
        if status != "running":
            counts[status] += 1
    return dict(counts)


def open_runs(prefix: str) -> list[str]:
    return [row[0] for row in query(OPEN, (prefix,))]


def workers_alive(names: Sequence[str], since: datetime) -> int:
    """How many of the workers have shown up in the database."""
    count: int = query(ALIVE, (list(names), since))[0][0]
    return count


def runs_held(prefix: str) -> dict[str, list[str]]:
    """The open runs of each worker, by the worker's name."""
    held: dict[str, list[str]] = defaultdict(list)
    for worker, workflow_id in query(HELD, (prefix,)):
        held[worker].append(workflow_id)
    return held


def collect(prefix: str, began: datetime, kills: Sequence[Kill], violations: list[str]) -> Report:
    statuses = run_ends(prefix)
    orphans = {run for kill in kills for run in kill.runs}
    parameters = {"steps": STEPS, "closing": CLOSING, "began": began, "prefix": prefix}
    steps, activities, retried, seconds = query(TOTALS, parameters)[0]
    survivor = _survivor(orphans, statuses)
    return Report(
        orders=len(statuses),
        completed=sum(status == "completed" for status in statuses.values()),
        compensated=sum(status in ("failed", "cancelled") for status in statuses.values()),
        activities=activities,
        activities_retried=retried,
        kills=len(kills),
        takeovers=sum(statuses[run] not in ("running", "terminated") for run in orphans),
        steps=steps,
        seconds=round(seconds or 0.0, 3),
        faults=payments.ledger()["faults"],
        violations=violations,
        survivor=survivor,
        history=[Event(*row) for row in query(HISTORY, (survivor,))] if survivor else [],
        killed=list(kills),
    )


def _survivor(orphans: set[str], statuses: dict[str, str]) -> str | None:
    """The order whose history is worth reading: its worker was killed, it completed all the same, and it took most events."""
    candidates = [run for run in orphans if statuses[run] == "completed"] or sorted(orphans)
    if not candidates:
        return None
    return str(max(query(LAST_EVENTS, (candidates,)), key=lambda row: (row[2], row[1]))[0])


# -- showing ----------------------------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    console.print(_summary(report))
    _show_verdict(report, console)
    if report.survivor:
        console.print(f"\n[bold]{report.survivor}[/bold], whose worker was killed on the way:")
        console.print(_history(report))


def _summary(report: Report) -> Table:
    faults = (
        ", ".join(f"{count} × {fault}" for fault, count in sorted(report.faults.items())) or "none"
    )
    rows = {
        "orders completed": report.completed,
        "orders compensated": report.compensated,
        "activities run": report.activities,
        "activities retried": report.activities_retried,
        "faults of the payment service": faults,
        "workers killed": report.kills,
        "orders taken over": report.takeovers,
        "steps": f"{report.steps} in {report.seconds:.1f} s, {report.steps_per_s:,.0f} a second, outages included",
    }
    table = Table(show_header=False, title="What happened", title_justify="left")
    for name, value in rows.items():
        table.add_row(name, Text(str(value)))
    return table


def _show_verdict(report: Report, console: Console) -> None:
    if report.adds_up:
        console.print(
            f"[green]The books add up:[/green] {report.orders} orders in a legal final state, none lost,"
            " no piece of stock and no cent missing, nobody charged twice."
        )
        return
    console.print(f"[red]The books do not add up[/red], {len(report.violations)} violations:")
    for violation in report.violations:
        console.print(Text(f"  {violation}"))


def _history(report: Report) -> Table:
    table = Table(
        "#", "at", "event", Column("what", no_wrap=True, overflow="ellipsis", ratio=1), expand=True
    )
    start = report.history[0].at
    kills = [kill for kill in report.killed if report.survivor in kill.runs]
    for event in report.history:
        while kills and kills[0].at < event.at:
            kill = kills.pop(0)
            table.add_row(
                "", _offset(start, kill.at), Text(f"SIGKILL to {kill.worker}", style="bold red"), ""
            )
        table.add_row(
            str(event.seq), _offset(start, event.at), event.type, Text(_what(event, report.history))
        )
    return table


def _offset(start: datetime, at: datetime) -> str:
    return f"+{(at - start).total_seconds():.3f} s"


def _what(event: Event, history: Sequence[Event]) -> str:
    """The facts of an event on one line: what it is about, where the code asked for it, the attempt if not the first, the data."""
    body = event.body
    about = history[body["ref"] - 1].body if "ref" in body else body
    words = [str(about.get("name") or about.get("reason") or "")]
    if "ref" in body:
        words.append(f"(#{body['ref']})")
    if "line" in body:
        words.append(f"at {body['line']}")
    if (body.get("attempt") or 1) > 1:
        words.append(f"attempt {body['attempt']}")
    if (
        event.payload not in (None, "null") and event.type != "ActivityScheduled"
    ):  # its arguments: the order again
        words.append(str(event.payload))
    return " ".join(filter(None, words))
