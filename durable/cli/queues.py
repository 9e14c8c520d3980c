"""Commands on queues: their limits, pause and resume, and why a job does not run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durable.cli.exits import BadInput
from durable.cli.output import clock, line, print_json, print_table
from durable.cli.settings import Actor, Json, Url, open_client, who

if TYPE_CHECKING:
    from durable.queue_limits import QueueDescription, RateLimit

app = typer.Typer(help="Queues: list, show, create, set, pause, resume, why.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Why; `durable queue show` tells it.")]
_LIMIT = "A number, or `none` to take the limit away."
_RATE = "Starts in a time: 100/60s (a sliding window), 100/1m:bucket, 100/1m:bucket:20 (burst); or `none`."
Slots = Annotated[
    str | None, typer.Option(help=f"At once in each worker, whatever it was started with. {_LIMIT}")
]
Global = Annotated[
    str | None, typer.Option("--global", help=f"At once in all workers together. {_LIMIT}")
]
PerKey = Annotated[
    str | None, typer.Option("--per-key", help=f"At once for each partition key. {_LIMIT}")
]
Rate = Annotated[str | None, typer.Option("--rate", help=_RATE)]
KeyRate = Annotated[str | None, typer.Option("--key-rate", help="The same for each partition key.")]

_SPEED = re.compile(r"([\d.]+)/([\d.]*)(ms|s|m|h|d)(?::(window|bucket)(?::([\d.]+))?)?")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command("list")
def list_(*, url: Url = None, in_json: Json = False) -> None:
    """The queues that were configured or that a worker serves."""
    with open_client(url) as client:
        found = client.queues()
    if in_json:
        print_json(found)
        return
    columns = ["queue", "state", "waiting", "workers", "slots", "global", "rate", "per key"]
    print_table(columns, [_row(each) for each in found])


def _row(queue: QueueDescription) -> list[Any]:
    per_key = [str(it) for it in (queue.key_limit, queue.key_rate_limit) if it is not None]
    return [
        queue.name, "paused" if queue.paused_at else "", queue.waiting, queue.workers, queue.slots, queue.global_limit,
        "" if queue.rate_limit is None else str(queue.rate_limit), ", ".join(per_key),
    ]  # fmt: skip


@app.command("show")
def show(name: Name, *, url: Url = None, in_json: Json = False) -> None:
    """One queue: limits, what waits, who serves it."""
    with open_client(url) as client:
        queue = client.queue(name).describe()
    if in_json:
        print_json(queue)
        return
    why = f": {queue.pause_reason}" if queue.pause_reason else ""
    state = f"paused since {clock(queue.paused_at)}{why}" if queue.paused_at else "open"
    line(f"{name}: {state}", style="yellow" if queue.paused_at else "green")
    line(f"  {queue.waiting} waiting, {queue.workers} live workers")
    limits = {
        "slots in each worker": queue.slots, "at once in all workers": queue.global_limit, "rate": queue.rate_limit,
        "at once for each key": queue.key_limit, "rate for each key": queue.key_rate_limit,
    }  # fmt: skip
    for what, limit in limits.items():
        line(f"  {what}: {'no limit' if limit is None else limit}")


@app.command("create")
def create(
    name: Name,
    *,
    slots: Slots = None,
    global_limit: Global = None,
    per_key: PerKey = None,
    rate: Rate = None,
    key_rate: KeyRate = None,
    paused: Annotated[bool, typer.Option("--paused", help="Nothing starts until resumed.")] = False,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Configure a queue before its first job; the same as `set`, and may start paused.

    durable queue create mail --global 10 --rate 100/60s --paused
    """
    changes = _changes(slots, global_limit, per_key, rate, key_rate)
    _configure(name, {**changes, **({"paused": True} if paused else {})}, reason, actor, url)
    show(name, url=url, in_json=in_json)


@app.command("set")
def set_(
    name: Name,
    *,
    slots: Slots = None,
    global_limit: Global = None,
    per_key: PerKey = None,
    rate: Rate = None,
    key_rate: KeyRate = None,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Set limits; what is not named stays as it is.

    durable queue set mail --global 20 --rate none
    """
    changes = _changes(slots, global_limit, per_key, rate, key_rate)
    if not changes:
        raise BadInput("say what to set: --slots, --global, --per-key, --rate or --key-rate")
    _configure(name, changes, reason, actor, url)
    show(name, url=url, in_json=in_json)


@app.command("pause")
def pause(
    name: Name,
    *,
    reason: Reason = None,
    actor: Actor = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Let nothing of a queue start until it is resumed. What runs goes on."""
    _configure(name, {"paused": True}, reason, actor, url)
    show(name, url=url, in_json=in_json)


@app.command("resume")
def resume(name: Name, *, actor: Actor = None, url: Url = None, in_json: Json = False) -> None:
    """Let jobs of a paused queue start again."""
    _configure(name, {"paused": False}, None, actor, url)
    show(name, url=url, in_json=in_json)


@app.command("why")
def why(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)],
    *,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Why a job is not running: everything that keeps it."""
    with open_client(url) as client:
        reasons = client.queue("default").explain(job)
    if in_json:
        print_json(reasons)
        return
    for reason in reasons:
        line(f"{reason.code}: {reason.message}")


def _configure(
    name: str, changes: dict[str, Any], reason: str | None, actor: str | None, url: str | None
) -> None:
    with open_client(url) as client:
        client.queue(name).set(**changes, reason=reason, actor=actor or who())


def _changes(
    slots: str | None,
    global_limit: str | None,
    per_key: str | None,
    rate: str | None,
    key_rate: str | None,
) -> dict[str, Any]:
    given = {
        "slots": _number("--slots", slots), "global_limit": _number("--global", global_limit), "key_limit": _number("--per-key", per_key),
        "rate_limit": _rate("--rate", rate), "key_rate_limit": _rate("--key-rate", key_rate),
    }  # fmt: skip
    texts = (slots, global_limit, per_key, rate, key_rate)
    return {
        name: value
        for (name, value), text in zip(given.items(), texts, strict=True)
        if text is not None
    }


def _number(option: str, text: str | None) -> int | None:
    if text is None or text == "none":
        return None
    if not text.isdecimal():
        raise BadInput(f"{option} is {text!r}; give a whole number, or none")
    return int(text)


def _rate(option: str, text: str | None) -> RateLimit | None:
    from durable.queue_limits import RateLimit

    if text is None or text == "none":
        return None
    found = _SPEED.fullmatch(text)
    if found is None:
        raise BadInput(
            f"{option} is {text!r}; write 100/60s, 100/1m:bucket, 100/1m:bucket:20 or none"
        )
    limit, many, unit, kind, burst = found.groups()
    return RateLimit(
        float(limit),
        float(many or 1) * _UNITS[unit],
        "bucket" if kind == "bucket" else "window",
        None if burst is None else float(burst),
    )
