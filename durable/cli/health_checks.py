"""The doctor's checks, one function each: what the database says in, findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from durable.core.durations import span

if TYPE_CHECKING:
    from durable.store.health import HealthReader

Level = Literal["ok", "attention", "problem"]
Fault = Literal[
    "", "database", "deployment", "code", "operator", "application", "network", "clocks"
]

OLD_S = 60.0
"""Work that has waited longer, although a worker serves its queue, wants attention."""

FAR_OFF_S = 1.0

SETTLED_S = 10.0
"""A live worker takes what duties are free within a third of its lease; one that has lived for so long has had the time."""

STUCK_S = 60.0
"""A worker whose lease lapsed longer ago should have been buried by the holder of the rescue."""

LONG_TRANSACTION_S = 900.0

DEAD_ROWS = 50_000
"""Fewer are no bloat, whatever their share."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fault` is whose it is and `remedy` what to do; both are empty when all is well."""

    level: Level
    check: str
    finding: str
    fault: Fault = ""
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def _database(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import calls
    from durable.store.health import round_trip

    (row,) = reader.rows("read_server")
    _, _, took_s = round_trip(reader, calls.read_clock())
    said = f"PostgreSQL {row['server_version']}, round trip {took_s * 1000:.1f} ms"
    facts = {"server_version": row["server_version"], "round_trip_ms": round(took_s * 1000, 3)}
    if row["standby"]:
        remedy = "name the primary in DURABLE_DATABASE_URL"
        yield Finding(
            "problem", "database", f"{said}; it is a standby", "deployment", remedy, facts
        )
    elif row["read_only"]:
        remedy = "alter database ... set default_transaction_read_only = off, or another user"
        yield Finding(
            "problem", "database", f"{said}; sessions are read-only", "database", remedy, facts
        )
    elif row["encoding"] != "UTF8":
        said = f"{said}; its encoding is {row['encoding']}, and texts that this has no letters for are refused"
        remedy = "create the database anew with encoding 'UTF8', and move the data with pg_dump"
        yield Finding("attention", "database", said, "operator", remedy, facts)
    else:
        yield Finding("ok", "database", said, facts=facts)


def _schema(reader: HealthReader) -> Iterator[Finding]:
    found = reader.drift()
    if found is None:
        yield Finding(
            "ok", "schema", "up to date; nothing was written down to compare its objects with"
        )
        return
    facts = {"missing": found.missing, "changed": found.changed, "added": found.added}
    if found.missing or found.changed:
        said = f"changed by hand since it was migrated: {_some([*found.missing, *found.changed])}"
        remedy = (
            "put it back as the migrations have it, or restore the schema; do not run workers on it"
        )
        yield Finding("problem", "schema", said, "operator", remedy, facts)
    if found.added:
        said = f"holds what no migration has made: {_some(found.added)}"
        remedy = "move it to a schema of your own; the next migration may meet it"
        yield Finding("attention", "schema", said, "operator", remedy, facts)
    if not found:
        yield Finding("ok", "schema", "up to date, and as the migrations left it", facts=facts)


def _indexes(reader: HealthReader) -> Iterator[Finding]:
    rows = reader.rows("list_invalid_indexes")
    for row in rows:
        said = f"index {row['name']} of {row['table']} is invalid: every write pays for it, and no query uses it"
        remedy = (
            f"reindex index concurrently durable.{row['name']}; drop it if no migration names it"
        )
        if row["is_unique"]:
            said += "; it may not hold what is to be unique"
            remedy = f"remove duplicates, then {remedy}"
        yield Finding("problem", "indexes", said, "operator", remedy, dict(row))
    if not rows:
        yield Finding("ok", "indexes", "all valid")


def _clock(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import calls
    from durable.store.health import round_trip

    rows, before, took_s = round_trip(reader, calls.read_clock())
    (row,) = rows
    away_s = row["server_us"] / 1e6 - (before + took_s / 2)
    facts = {"away_s": round(away_s, 3), "offset_us": row["offset_us"]}
    if row["offset_us"]:
        said = f"moved by {span(row['offset_us'] / 1e6)} with durable.advance_clock"
        yield Finding("attention", "clock", said, "operator", "only tests should do that", facts)
    elif abs(away_s) > FAR_OFF_S:
        said = f"{span(away_s)} away from this machine's"
        remedy = "synchronise the clocks (NTP); the database's decides what is due"
        yield Finding("attention", "clock", said, "clocks", remedy, facts)
    else:
        yield Finding("ok", "clock", f"{away_s * 1000:+.0f} ms from this machine's", facts=facts)


def _workers(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import calls

    workers = reader.read(calls.list_workers())
    alive = [each for each in workers if each["state"] == "alive"]
    if not alive:
        remedy = "start one: durable worker MODULE"
        yield Finding("attention", "workers", "none is alive", "deployment", remedy)
    for each in alive:
        age = span((each["now"] - each["beat_at"]).total_seconds())
        said = f"{each['name']} serves {', '.join(each['queues'])}; last sign of life {age} ago"
        yield Finding("ok", "workers", said, facts={"name": each["name"], "build": each["build"]})
    for each in workers:
        if each["state"] in ("late", "dead"):
            age_s = (each["now"] - each["beat_at"]).total_seconds()
            said = f"{each['name']} was last heard of {span(age_s)} ago"
            remedy = "its work goes to the others; see why it ended"
            facts = {"name": each["name"], "state": each["state"], "age_s": age_s}
            yield Finding("attention", "workers", said, "deployment", remedy, facts)


def _duties(reader: HealthReader) -> Iterator[Finding]:
    rows = reader.rows("list_duties")
    left = [row for row in rows if not row["held"] and (row["oldest_worker_s"] or 0) > SETTLED_S]
    for row in left:
        since = f" for {span(row['lapsed_s'])}" if row["lapsed_s"] else ""
        said = f"nobody has done the duty {row['name']}{since}, although a worker is alive"
        remedy = "see the workers' logs for it; restart a worker"
        yield Finding("problem", "duties", said, "deployment", remedy, dict(row))
    unburied = [row for row in reader.rows("list_unburied") if row["lapsed_s"] > STUCK_S]
    anybody = any((row["oldest_worker_s"] or 0) > SETTLED_S for row in rows)
    for row in unburied if anybody else ():
        said = f"{row['name']} fell silent {span(row['lapsed_s'])} ago and still holds {row['runs']} workflows: the rescue is stuck"
        remedy = "see the log of the worker that holds the duty rescue; restart it"
        yield Finding("problem", "duties", said, "deployment", remedy, dict(row))
    if not left and not (unburied and anybody):
        held = [row["name"] for row in rows if row["held"]]
        said = f"{', '.join(held)} are held" if held else "none is held: no worker is alive"
        yield Finding("ok", "duties", said)


def _builds(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import calls

    for row in reader.read(calls.list_builds_without_worker()):
        said = (
            f"{row['runs']} workflows are pinned to build {row['build']}, which no live worker has"
        )
        remedy = f"durable worker MODULE --build {row['build']}, or durable move ID --build ANOTHER"
        yield Finding("problem", "builds", said, "deployment", remedy, dict(row))


def _queues(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import calls

    paused = {row["name"]: row for row in reader.rows("list_paused_queues")}
    for row in paused.values():
        why = f": {row['reason']}" if row["reason"] else ""
        said = f"{row['name']} has been paused for {span(row['paused_s'])}{why}"
        remedy = f"durable queue resume {row['name']}, when the reason is gone"
        yield Finding("attention", "queues", said, "operator", remedy, dict(row))
    backlog = reader.read(calls.list_backlog())
    if not backlog:
        yield Finding("ok", "queues", "nothing waits to be run", facts={"oldest_s": 0.0})
    for row in backlog:
        yield _backlog(row, is_paused=row["queue"] in paused)
    waiting = {row["queue"] for row in backlog}
    for row in reader.rows("list_unserved"):
        if row["queue"] not in waiting:
            said = f"no live worker polls {row['queue']}, and {row['reason']}"
            yield Finding(
                "attention", "queues", said, "deployment", _serve(row["queue"]), dict(row)
            )


def _backlog(row: Mapping[str, Any], *, is_paused: bool) -> Finding:
    said = f"{row['queue']}: {row['runs']} workflows and {row['jobs']} jobs wait, the oldest for {span(row['oldest_s'])}"
    facts = dict(row)
    if not row["workers"]:
        said += "; no live worker serves this queue"
        return Finding("problem", "queues", said, "deployment", _serve(row["queue"]), facts)
    if row["oldest_s"] > OLD_S and not is_paused:
        remedy = "more slots (--queue name=N) or more workers; durable queue list shows limits"
        return Finding("attention", "queues", said, "deployment", remedy, facts)
    return Finding("ok", "queues", said, facts=facts)


def _serve(queue: str) -> str:
    return f"start a worker for it: durable worker MODULE --queue {queue}"


def _reviews(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import calls

    (row,) = reader.read(calls.count_reviews())
    if row["needs_review"]:
        remedy = "durable list --operator-status needs_review; durable show says why"
        said = f"{row['needs_review']} workflows need a look"
        yield Finding("attention", "review", said, "code", remedy, dict(row))
    if row["blocked"]:
        said = f"{row['blocked']} workflows are blocked: no worker knows their function"
        remedy = "durable list --operator-status blocked; deploy their code"
        yield Finding("attention", "review", said, "deployment", remedy, dict(row))
    if not row["needs_review"] and not row["blocked"]:
        yield Finding("ok", "review", "no workflow needs a look")


def _parked(reader: HealthReader) -> Iterator[Finding]:
    (row,) = reader.rows("count_parked")
    said = {
        "exhausted": (
            "code",
            "wait for an operator: the attempts of an activity ran out",
            "durable list --operator-status needs_review; durable activity retry or set-result",
        ),
        "runs": (
            "operator",
            "are paused",
            "durable list --operator-status blocked; durable resume ID",
        ),
        "held": (
            "operator",
            "activities are paused one by one",
            "durable show ID; durable activity resume ID",
        ),
    }
    for key, (fault, what, remedy) in said.items():
        if row[key]:
            text = f"{row[key]} {'' if key == 'held' else 'workflows '}{what}"
            yield Finding("attention", "parked", text, fault, remedy, {key: row[key]})  # type: ignore[arg-type]
    if not any(row.values()):
        yield Finding("ok", "parked", "nothing is paused, nothing has run out of attempts")


def _schedules(reader: HealthReader) -> Iterator[Finding]:
    from durable.store import schedule_calls

    total, overdue, stopped = reader.read(schedule_calls.count_schedules())
    facts = {"total": total, "overdue": overdue, "stopped": stopped}
    if overdue:
        said = f"{overdue} of {total} schedules have been due for more than a minute"
        remedy = "start a worker; its log says what holds them up"
        yield Finding("attention", "schedules", said, "deployment", remedy, facts)
    if stopped:
        said = f"{stopped} schedules have paused themselves after a failure"
        remedy = "durable schedule list; show and resume them"
        yield Finding("attention", "schedules", said, "code", remedy, facts)
    if total and not overdue and not stopped:
        yield Finding("ok", "schedules", f"{total}, none is late", facts=facts)


def _bloat(reader: HealthReader) -> Iterator[Finding]:
    rows = reader.rows("list_bloat")
    bloated = [row for row in rows if row["dead"] >= DEAD_ROWS and row["dead"] > row["live"]]
    for row in bloated:
        when = f"vacuumed {span(row['vacuumed_s'])} ago" if row["vacuumed_s"] else "never vacuumed"
        said = f"{row['name']} has {row['dead']:,} dead rows and {row['live']:,} live ones; {when}"
        remedy = f"vacuum durable.{row['name']}; see what keeps autovacuum away (long transactions, its settings)"
        yield Finding("attention", "bloat", said, "database", remedy, dict(row))
    off = [row["name"] for row in rows if row["never_vacuumed"]]
    if off:
        said = f"autovacuum is off for {_some(off)}"
        remedy = "turn it on: the tables of a queue need it all the time"
        yield Finding("attention", "bloat", said, "database", remedy, {"tables": off})
    long = reader.rows("list_long_transactions", older_s=LONG_TRANSACTION_S)
    for row in long:
        said = f"{row['who']} (pid {row['pid']}, {row['state']}) has been in a transaction for {span(row['age_s'])}: nothing can be vacuumed"
        remedy = f"end it, or select pg_terminate_backend({row['pid']}); set idle_in_transaction_session_timeout"
        yield Finding("attention", "bloat", said, "application", remedy, dict(row))
    if not (bloated or off or long):
        most = max((row["dead"] for row in rows), default=0)
        yield Finding("ok", "bloat", f"at most {most:,} dead rows in a table", facts={"most": most})


def _pooler(reader: HealthReader) -> Iterator[Finding]:
    pooling = reader.pooling()
    facts = {"pooling": pooling}
    if pooling == "transaction":
        said = "a pooler gives each transaction another session (transaction pooling)"
        remedy = "workers and durable migrate need sessions: let them connect directly, or pool by session; clients may stay"
        yield Finding("attention", "pooler", said, "deployment", remedy, facts)
    else:
        said = "connections are direct" if pooling == "none" else "a pooler that keeps sessions"
        yield Finding("ok", "pooler", said, facts=facts)


def _notify(reader: HealthReader) -> Iterator[Finding]:
    if reader.hears_notifications():
        yield Finding("ok", "notify", "a notification arrives")
        return
    remedy = "connect directly or with session pooling, or start workers with --no-notify: they then find work by polling alone"
    said = "notifications do not arrive: something between here and the server swallows them"
    yield Finding("attention", "notify", said, "network", remedy)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


CHECKS: Mapping[str, Callable[[HealthReader], Iterator[Finding]]] = {
    "database": _database,
    "schema": _schema,
    "indexes": _indexes,
    "clock": _clock,
    "workers": _workers,
    "duties": _duties,
    "builds": _builds,
    "queues": _queues,
    "review": _reviews,
    "parked": _parked,
    "schedules": _schedules,
    "bloat": _bloat,
    "pooler": _pooler,
    "notify": _notify,
}
