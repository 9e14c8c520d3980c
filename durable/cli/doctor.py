"""`durable doctor`: is everything there that running workflows need, whose fault is it if not, and what to do.

Nothing is written: the session can only read. Exit code 0: healthy; 1: something wants attention; 2: a problem that stops work.

The JSON is `{"schema_version": 1, "level": ..., "findings": [{"level", "check", "finding", "fault", "remedy", "facts"}, ...]}`. The version rises when a
field is taken away or changes its meaning; new checks and new facts may come at any time. `facts` are the numbers that the finding was made of.
"""

from __future__ import annotations

from collections.abc import Iterator

from durable.cli.health_checks import CHECKS, Finding
from durable.cli.output import print_json, print_table
from durable.cli.settings import Json, Url
from durable.errors import DatabaseUnavailable, DurableError, InvalidOption, SchemaOutOfDate

SCHEMA_VERSION = 1

_EXIT_CODES = {"ok": 0, "attention": 1, "problem": 2}


def doctor(*, url: Url = None, in_json: Json = False) -> None:
    """Check database, schema, clocks, workers, queues, what is parked.

    Only reads. Exit code 0: healthy, 1: something wants attention, 2: a problem stops work.
    """
    findings = list(_examine(url))
    level = max((each.level for each in findings), key=lambda it: _EXIT_CODES[it])
    if in_json:
        print_json({"schema_version": SCHEMA_VERSION, "level": level, "findings": findings})
    else:
        rows = [
            (each.level, each.check, each.finding, each.fault, each.remedy) for each in findings
        ]
        print_table(("state", "check", "finding", "up to", "what to do"), rows)
    raise SystemExit(_EXIT_CODES[level])


def _examine(url: str | None) -> Iterator[Finding]:
    from durable.requests import database_url
    from durable.store.health import HealthReader

    try:
        with HealthReader(database_url(url)) as reader:
            for name, check in CHECKS.items():
                yield from _made(name, check(reader))
    except (DatabaseUnavailable, InvalidOption) as error:
        remedy = "start PostgreSQL, or set DURABLE_DATABASE_URL"
        yield Finding("problem", "database", str(error), "database", remedy)
    except SchemaOutOfDate as error:
        yield Finding("problem", "schema", str(error), "deployment", "run durable migrate")


def _made(name: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """One check's findings; that it could not be made is one, and no reason to leave the others out."""
    try:
        yield from findings
    except (DurableError, TimeoutError) as error:
        remedy = "see the database's log, and try again; a check that takes long says that the database is busy"
        yield Finding("problem", name, f"could not be looked at: {error}", "database", remedy)
