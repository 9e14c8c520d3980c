"""`durable schedule ...`: create, list, show, pause, resume, trigger, backfill, update, delete."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.exits import BadInput
from durable.cli.moments import duration, moment
from durable.cli.output import as_json, clock, line, print_json, print_table, short
from durable.cli.output import moment as in_words
from durable.cli.settings import Actor, App, Json, Url, import_app, open_client, read_json, who
from durable.core.durations import span

if TYPE_CHECKING:
    from durable.core.schedule_times import Calendar
    from durable.schedule_requests import ScheduleDescription
    from durable.store.schedule_calls import ScheduleSlot

app = typer.Typer(
    name="schedule",
    help="Start workflows and jobs at times.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ScheduleId = Annotated[
    str, typer.Argument(metavar="ID", help="The schedule's id.", show_default=False)
]
Cron = Annotated[
    list[str] | None,
    typer.Option("--cron", metavar="EXPRESSION", help="A cron expression; repeatable."),
]
Every = Annotated[
    str | None, typer.Option("--every", metavar="SPAN", help="An interval: 30m, 12h, 1d.")
]
Offset = Annotated[
    str | None, typer.Option("--offset", metavar="SPAN", help="The interval's phase.")
]
At = Annotated[
    list[str] | None, typer.Option("--at", metavar="TIME", help="A listed time; repeatable.")
]
Calendars = Annotated[
    list[str] | None,
    typer.Option(
        "--calendar",
        metavar="FIELDS",
        help="Date and time fields, as 'month=1,4,7,10 day=1 hour=9'; repeatable.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", metavar="WHAT", help="A day, a time, or calendar fields; repeatable."
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option("--timezone", "-z", metavar="NAME", help="IANA name; UTC if not given."),
]
Start = Annotated[str | None, typer.Option("--start", metavar="TIME", help="Not before.")]
End = Annotated[str | None, typer.Option("--end", metavar="TIME", help="Not after.")]
Jitter = Annotated[
    str | None, typer.Option("--jitter", metavar="SPAN", help="Start later by up to this.")
]
Overlap = Annotated[
    str | None,
    typer.Option(
        "--overlap",
        help="While the run before is open: skip, buffer_one, buffer_all, cancel, terminate, allow.",
    ),
]
CatchUp = Annotated[
    str | None, typer.Option("--catch-up", metavar="SPAN", help="How late a slot may still start.")
]
PauseOnFailure = Annotated[
    bool | None,
    typer.Option("--pause-on-failure/--go-on", help="Pause the schedule when a run fails."),
]
Queue = Annotated[str | None, typer.Option(help="Another queue than its own.")]
Priority = Annotated[int | None, typer.Option(help="0 (first) to 9.")]
Note = Annotated[str | None, typer.Option("--note", help="Why, for people.")]
Arguments = Annotated[
    str | None,
    typer.Argument(
        metavar="JSON",
        help="Its arguments by name: a JSON object, @file, or - for standard input.",
    ),
]


@app.command("create")
def create(
    schedule_id: ScheduleId,
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A workflow, or an activity to run as a job.", show_default=False
        ),
    ],
    arguments: Arguments = None,
    *,
    cron: Cron = None,
    every: Every = None,
    offset: Offset = None,
    at: At = None,
    calendar: Calendars = None,
    exclude: Exclude = None,
    timezone: Timezone = None,
    start: Start = None,
    end: End = None,
    jitter: Jitter = None,
    overlap: Overlap = None,
    catch_up: CatchUp = None,
    pause_on_failure: PauseOnFailure = None,
    queue: Queue = None,
    priority: Priority = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    note: Note = None,
    on_existing: Annotated[
        str, typer.Option(help="If the id is in use: fail, keep, update.")
    ] = "fail",
    actor: Actor = None,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Create a schedule.

    durable schedule create books close_books '{"year": 2031}' --cron "0 9 * * MON-FRI" -z Europe/Berlin
    """
    import_app(app)
    options = {
        **_times(cron, every, offset, at, calendar, exclude, timezone, start, end, jitter),
        **_rest(overlap, catch_up, pause_on_failure, queue, priority),
        "arguments": read_json("the arguments", arguments, {}),
        "paused": paused,
        "on_existing": on_existing,
        "by": actor or who(),
        **({} if note is None else {"note": note}),
    }
    with open_client(url) as client:
        handle = client.schedule(schedule_id, target, **options)
        made = handle.describe()
    _said(made, f"schedule {schedule_id} starts {target}; next {_first(made)}", in_json=in_json)


@app.command("update")
def update(
    schedule_id: ScheduleId,
    target: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Another workflow or activity.")
    ] = None,
    arguments: Arguments = None,
    *,
    cron: Cron = None,
    every: Every = None,
    offset: Offset = None,
    at: At = None,
    calendar: Calendars = None,
    exclude: Exclude = None,
    timezone: Timezone = None,
    start: Start = None,
    end: End = None,
    jitter: Jitter = None,
    overlap: Overlap = None,
    catch_up: CatchUp = None,
    pause_on_failure: PauseOnFailure = None,
    queue: Queue = None,
    priority: Priority = None,
    actor: Actor = None,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Change a schedule in place. Any option about times replaces all of them."""
    import_app(app)
    options = {
        **_times(cron, every, offset, at, calendar, exclude, timezone, start, end, jitter),
        **_rest(overlap, catch_up, pause_on_failure, queue, priority),
    }
    if arguments is not None:
        options["arguments"] = read_json("the arguments", arguments, {})
    if not options and target is None:
        msg = "nothing to change; durable schedule update --help lists what can be"
        raise BadInput(msg)
    with open_client(url) as client:
        handle = client.schedule_handle(schedule_id)
        handle.update(target, **options, by=actor or who())
        made = handle.describe()
    _said(made, f"updated {schedule_id}; next {_first(made)}", in_json=in_json)


@app.command("list")
def list_(
    *,
    prefix: Annotated[str | None, typer.Option(help="Only ids that begin so.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """List schedules."""
    with open_client(url) as client:
        found = client.schedules(id_prefix=prefix, limit=limit)
    if in_json:
        print_json(found)
    elif not found:
        line("no schedule here yet" if prefix is None else "none matches")
    else:
        columns = ("id", "starts", "when", "state", "open", "waiting", "next")
        print_table(columns, [_row(each) for each in found])


def _row(each: ScheduleDescription) -> tuple[Any, ...]:
    state = "paused" if each.paused else "alive"
    coming = "" if each.paused else _first(each)
    return (
        each.schedule_id,
        each.name,
        short(each.times, 50),
        state,
        each.open,
        each.waiting,
        coming,
    )


def _first(each: ScheduleDescription) -> str:
    return clock(each.next[0]).partition(".")[0] if each.next else "never"


@app.command("show")
def show(
    schedule_id: ScheduleId,
    *,
    next: Annotated[int, typer.Option("--next", help="How many coming slots.")] = 5,
    slots: Annotated[int, typer.Option("--slots", help="How many decided slots.")] = 10,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Show a schedule, its next slots, and what was decided about the last ones."""
    with open_client(url) as client:
        handle = client.schedule_handle(schedule_id)
        found, decided = handle.describe(next=next), handle.slots(limit=slots)
    if in_json:
        print_json({"schedule": found, "slots": decided})
        return
    line(schedule_id, style="bold")
    for name, value in _facts(found):
        line(f"{name:<11}{value}")
    for index, each in enumerate(found.next):
        line(f"{'next' if not index else '':<11}{in_words(each)}")
    if decided:
        line()
        print_table(
            ("slot", "decision", "starts", "outcome", "reason"), [_slot(each) for each in decided]
        )


def _facts(found: ScheduleDescription) -> list[tuple[str, Any]]:
    paused = f"paused{': ' + found.note if found.note else ''}"
    facts = [
        ("starts", f"{found.kind} {found.name} {as_json(found.arguments)}"),
        ("when", found.times),
        ("state", paused if found.paused else "alive"),
        ("overlap", f"{found.overlap}; catch-up {span(found.catch_up_s)}"),
        ("jitter", span(found.jitter_s) if found.jitter_s else ""),
        ("on failure", "pause" if found.pause_on_failure else ""),
        ("queue", found.queue),
        ("runs", f"{found.open} open, {found.waiting} waiting to start"),
        ("made by", "code, with schedule=" if found.declared else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _slot(each: ScheduleSlot) -> tuple[Any, ...]:
    origin = "" if each.origin == "time" else f" ({each.origin})"
    at = clock(each.scheduled_for).partition(".")[0] + origin
    return (at, each.decision, each.target, each.outcome, each.reason)


@app.command("pause")
def pause(
    schedule_id: ScheduleId, *, note: Note = None, actor: Actor = None, url: Url = None,
    in_json: Json = False,
) -> None:  # fmt: skip
    """Start nothing until it is resumed."""
    with open_client(url) as client:
        client.schedule_handle(schedule_id).pause(note, actor=actor or who())
    _said({"schedule_id": schedule_id, "paused": True}, f"paused {schedule_id}", in_json=in_json)


@app.command("resume")
def resume(
    schedule_id: ScheduleId, *, note: Note = None, actor: Actor = None, url: Url = None,
    in_json: Json = False,
) -> None:  # fmt: skip
    """Go on with the next slot; `backfill` makes up for what passed by."""
    with open_client(url) as client:
        client.schedule_handle(schedule_id).resume(note, actor=actor or who())
    _said({"schedule_id": schedule_id, "paused": False}, f"resumed {schedule_id}", in_json=in_json)


@app.command("trigger")
def trigger(
    schedule_id: ScheduleId, *, overlap: Overlap = None, actor: Actor = None, url: Url = None,
    in_json: Json = False,
) -> None:  # fmt: skip
    """Run it now."""
    with open_client(url) as client:
        handle, by = client.schedule_handle(schedule_id), actor or who()
        slot = handle.trigger(overlap=_overlap(overlap), actor=by)
    said = f"triggered {schedule_id}; durable schedule show {schedule_id} shows what came of it"
    _said({"schedule_id": schedule_id, "slot": slot}, said, in_json=in_json)


@app.command("backfill")
def backfill(
    schedule_id: ScheduleId,
    *,
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="The first slot.", show_default=False)
    ],
    end: Annotated[
        str, typer.Option("--to", metavar="TIME", help="The last slot.", show_default=False)
    ],
    overlap: Overlap = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Run the slots of a range that were not started."""
    first, last = moment("--from", start), moment("--to", end)
    with open_client(url) as client:
        handle = client.schedule_handle(schedule_id)
        count = handle.backfill(first, last, overlap=_overlap(overlap), actor=actor or who())
    _said(
        {"schedule_id": schedule_id, "slots": count},
        f"{count} slots of {schedule_id} are to be run",
        in_json=in_json,
    )


@app.command("delete")
def delete(
    schedule_id: ScheduleId, *, actor: Actor = None, url: Url = None, in_json: Json = False
) -> None:
    """Delete it. Its open runs go on."""
    with open_client(url) as client:
        client.schedule_handle(schedule_id).delete(actor=actor or who())
    _said({"schedule_id": schedule_id, "deleted": True}, f"deleted {schedule_id}", in_json=in_json)


def _said(value: Any, text: str, *, in_json: bool) -> None:
    if in_json:
        print_json(value)
    else:
        line(text, style="green")


# -- what was typed ---------------------------------------------------------------------------------------------------


def _times(
    cron: list[str] | None,
    every: str | None,
    offset: str | None,
    at: list[str] | None,
    calendar: list[str] | None,
    exclude: list[str] | None,
    timezone: str | None,
    start: str | None,
    end: str | None,
    jitter: str | None,
) -> dict[str, Any]:
    listed = [
        *(moment("--at", each) for each in at or ()),
        *(_calendar("--calendar", each) for each in calendar or ()),
    ]
    given = {
        "cron": cron or None,
        "every": every and duration("--every", every),
        "offset": offset and duration("--offset", offset),
        "calendar": listed or None,
        "exclude": [_excluded(each) for each in exclude or ()] or None,
        "timezone": timezone,
        "start": start and moment("--start", start),
        "end": end and moment("--end", end),
        "jitter": jitter and duration("--jitter", jitter),
    }
    return {name: value for name, value in given.items() if value is not None}


def _rest(
    overlap: str | None,
    catch_up: str | None,
    pause_on_failure: bool | None,
    queue: str | None,
    priority: int | None,
) -> dict[str, Any]:
    given = {
        "overlap": overlap,
        "catch_up": catch_up and duration("--catch-up", catch_up),
        "pause_on_failure": pause_on_failure,
        "queue": queue,
        "priority": priority,
    }
    return {name: value for name, value in given.items() if value is not None}


def _overlap(value: str | None) -> Any:
    return value


def _excluded(text: str) -> date | datetime | Calendar:
    if "=" in text:
        return _calendar("--exclude", text)
    try:
        return date.fromisoformat(text)
    except ValueError:
        return moment("--exclude", text)


def _calendar(option: str, text: str) -> Calendar:
    """`month=1,4,7,10 day=1 hour=9-17 weekday=mon-fri`. Raises BadInput, or InvalidOption for a number out of range."""
    from durable.core.schedule_times import Calendar

    fields: dict[str, Any] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        numbers = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value)
        if not equals or name not in Calendar.__slots__ or not (numbers or name == "weekday"):
            msg = f"{option} {text!r}: write fields as month=1,4,7,10 day=1-7 weekday=mon-fri hour=9 minute=30"
            raise BadInput(msg)
        fields[name] = value if name == "weekday" else _numbers(value)
    return Calendar(**fields)


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.extend(range(int(first), min(int(last or first), int(first) + 3000) + 1))
    return found
