"""`durable doctor`: is everything there that running workflows need, and what to do if not.

Exit code 0: healthy; 1: something wants attention; 2: a problem that stops work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from durable.cli.output import print_json, print_table
from durable.cli.settings import Json, Url, open_client
from durable.core.durations import span
from durable.errors import DatabaseUnavailable, InvalidOption, SchemaOutOfDate

if TYPE_CHECKING:
    from durable.client_sync import Client

Level = Literal["ok", "attention", "problem"]

OLD_S = 60.0
"""Work that has waited longer, although a worker serves its queue, wants attention."""

FAR_OFF_S = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `remedy` is empty when all is well."""

    level: Level
    check: str
    finding: str
    remedy: str = ""


def doctor(*, url: Url = None, in_json: Json = False) -> None:
    """Check database, schema, workers, queues.

    Exit code 0: healthy, 1: something wants attention, 2: a problem stops work.
    """
    findings = list(_examine(url))
    if in_json:
        print_json(findings)
    else:
        rows = [(each.level, each.check, each.finding, each.remedy) for each in findings]
        print_table(("state", "check", "finding", "what to do"), rows)
    levels = {each.level for each in findings}
    raise SystemExit(2 if "problem" in levels else 1 if "attention" in levels else 0)


def _examine(url: str | None) -> Iterator[Finding]:
    try:
        with open_client(url) as client:
            yield from _connection(client)
            yield from _workers(client)
            yield from _builds(client)
            yield from _queues(client)
            yield from _reviews(client)
            yield from _schedules(client)
    except (DatabaseUnavailable, InvalidOption) as error:
        yield Finding(
            "problem", "database", str(error), "start PostgreSQL, or set DURABLE_DATABASE_URL"
        )
    except SchemaOutOfDate as error:
        yield Finding("problem", "schema", str(error), "run durable migrate")


def _connection(client: Client) -> Iterator[Finding]:
    from durable.store import calls

    client._execute(calls.read_clock())  # the first one pays for connecting
    before = time.time()
    (row,) = client._execute(calls.read_clock())
    after = time.time()
    yield Finding(
        "ok",
        "database",
        f"PostgreSQL {row['server_version']}, round trip {(after - before) * 1000:.1f} ms",
    )
    yield Finding("ok", "schema", "up to date")
    away_s = row["server_us"] / 1e6 - (before + after) / 2
    if row["offset_us"]:
        moved = span(row["offset_us"] / 1e6)
        yield Finding(
            "attention",
            "clock",
            f"moved by {moved} with durable.advance_clock",
            "only tests should do that",
        )
    elif abs(away_s) > FAR_OFF_S:
        yield Finding(
            "attention",
            "clock",
            f"{span(away_s)} away from this machine's",
            "synchronise the clocks",
        )
    else:
        yield Finding("ok", "clock", f"{away_s * 1000:+.0f} ms from this machine's")


def _workers(client: Client) -> Iterator[Finding]:
    from durable.store import calls

    workers = client._execute(calls.list_workers())
    alive = [each for each in workers if each["state"] == "alive"]
    if not alive:
        yield Finding("attention", "workers", "none is alive", "start one: durable worker MODULE")
    for each in alive:
        age = span((each["now"] - each["beat_at"]).total_seconds())
        yield Finding(
            "ok",
            "workers",
            f"{each['name']} serves {', '.join(each['queues'])}; last sign of life {age} ago",
        )
    for each in workers:
        if each["state"] in ("late", "dead"):
            age = span((each["now"] - each["beat_at"]).total_seconds())
            said = f"{each['name']} was last heard of {age} ago"
            yield Finding(
                "attention", "workers", said, "its work goes to the others; see why it ended"
            )


def _builds(client: Client) -> Iterator[Finding]:
    from durable.store import calls

    for row in client._execute(calls.list_builds_without_worker()):
        said = (
            f"{row['runs']} workflows are pinned to build {row['build']}, which no live worker has"
        )
        remedy = f"durable worker MODULE --build {row['build']}, or durable move ID --build ANOTHER"
        yield Finding("problem", "builds", said, remedy)


def _queues(client: Client) -> Iterator[Finding]:
    from durable.store import calls

    backlog = client._execute(calls.list_backlog())
    if not backlog:
        yield Finding("ok", "queues", "nothing waits to be run")
    for row in backlog:
        said = f"{row['queue']}: {row['runs']} workflows and {row['jobs']} jobs wait, the oldest for {span(row['oldest_s'])}"
        if not row["workers"]:
            remedy = f"start a worker for it: durable worker MODULE --queue {row['queue']}"
            yield Finding("problem", "queues", f"{said}; no live worker serves this queue", remedy)
        elif row["oldest_s"] > OLD_S:
            yield Finding(
                "attention", "queues", said, "more slots (--queue name=N) or more workers"
            )
        else:
            yield Finding("ok", "queues", said)


def _reviews(client: Client) -> Iterator[Finding]:
    from durable.store import calls

    (row,) = client._execute(calls.count_reviews())
    if row["needs_review"]:
        remedy = "durable list --operator-status needs_review"
        yield Finding("attention", "review", f"{row['needs_review']} workflows need a look", remedy)
    if row["blocked"]:
        said = f"{row['blocked']} workflows are blocked: no worker knows their function"
        yield Finding(
            "attention", "review", said, "durable list --operator-status blocked; deploy their code"
        )
    if not row["needs_review"] and not row["blocked"]:
        yield Finding("ok", "review", "no workflow needs a look")


def _schedules(client: Client) -> Iterator[Finding]:
    from durable.store import schedule_calls

    total, overdue, stopped = client._execute(schedule_calls.count_schedules())
    if overdue:
        said = f"{overdue} of {total} schedules have been due for more than a minute"
        yield Finding(
            "attention", "schedules", said, "start a worker; its log says what holds them up"
        )
    if stopped:
        said = f"{stopped} schedules have paused themselves after a failure"
        yield Finding("attention", "schedules", said, "durable schedule list; show and resume them")
    if total and not overdue and not stopped:
        yield Finding("ok", "schedules", f"{total}, none is late")
