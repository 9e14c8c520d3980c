"""What a caller asks for, checked before anything is written (C18), as calls of the store.

Everything here is pure, and shared by both clients and the command line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import UUID

from durable.attributes import Attributes, encoded_attributes
from durable.context import encoded_actor, encoded_headers, refuse_without_actor
from durable.core import semantics
from durable.core.names import checked_name, checked_priority
from durable.core.policy import LifeLimits, RetryPolicy, is_excluded
from durable.descriptions import SignalReceipt
from durable.errors import DatabaseUnavailable, InvalidOption
from durable.failure import encode_failure, failure_type_names, leaves
from durable.ids import uuid7
from durable.payload import ValueCodec
from durable.store import calls
from durable.store.calls import Call, Sent, Started
from durable.store.completion_calls import Settlement

if TYPE_CHECKING:
    from durable.grouping import JobCall
    from durable.messages import UpdateRequest
    from durable.unique import Unique

OnRunning = Literal["existing", "fail", "terminate"]
OnClosed = Literal["existing", "new", "new_if_failed", "fail"]

URL_VARIABLE = "DURABLE_DATABASE_URL"
MAX_ID = 1000
MAX_REASON = 8192
MAX_ATTRIBUTES = 64 * 1024
MAX_DETAILS = 8192
_LONGEST_S = timedelta(days=3650).total_seconds()


@dataclass(frozen=True, slots=True)
class Target:
    """A workflow or activity to start: its names and defaults, and how its arguments and result are written.

    `result` is None when only the database knows the function; its result is then plain JSON. `unique`: what an activity was declared with. `read`: the
    arguments as its code gets them, where a caller gives them by name.
    """

    name: str
    version: int
    queue: str
    priority: int
    options: dict[str, Any]
    encode: Callable[[tuple[Any, ...], Mapping[str, Any]], str]
    result: ValueCodec | None
    require_actor: bool = False
    unique: Unique | None = None
    read: Callable[[str], tuple[tuple[Any, ...], Mapping[str, Any]]] | None = None


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The keyword options of `start`, as given."""

    id: str | None = None
    queue: str | None = None
    priority: int | None = None
    delay: timedelta | float | None = None
    attributes: Attributes | None = None
    actor: Any = None
    memo: Mapping[str, Any] | None = None
    headers: Mapping[str, Any] | None = None
    pinned: bool | None = None
    on_running: OnRunning = "existing"
    on_closed: OnClosed = "existing"
    run_timeout: timedelta | None = None
    execution_timeout: timedelta | None = None
    details: str | None = None
    with_signal: tuple[Any, Any] | None = None
    with_update: UpdateRequest[Any] | None = None
    on_end: JobCall | None = None


_MEMO = ValueCodec(dict[str, Any], field="memo", max_bytes=MAX_ATTRIBUTES)


def database_url(url: str | None) -> str:
    """`url`, or DURABLE_DATABASE_URL. Raises DatabaseUnavailable when neither is set."""
    found = url or os.environ.get(URL_VARIABLE)
    if not found:
        msg = f"no database is named; pass its URL, or set {URL_VARIABLE} (postgresql://user@host:5432/name)"
        raise DatabaseUnavailable(msg)
    return found


# -- calls ------------------------------------------------------------------------------------------------------------


def start(
    target: Target,
    args: tuple[Any, ...],
    arguments: Mapping[str, Any],
    options: StartOptions,
    on_end: str | None = None,
) -> tuple[str, Call[Sent[Started]]]:
    """The workflow id and the call that starts it. Raises PayloadError or InvalidOption; nothing is written then.

    `on_end`: the job that follows its end, as `grouping.following` describes it.
    """
    workflow_id = str(uuid7()) if options.id is None else text("id", options.id, MAX_ID)
    queue = target.queue if options.queue is None else checked_name("queue", options.queue)
    priority = (
        target.priority
        if options.priority is None
        else checked_priority("priority", options.priority)
    )
    who = actor(options.actor)
    if target.require_actor:
        refuse_without_actor("workflow", target.name, who)
    about = encoded_attributes(options.attributes)
    optional = {
        "actor": who,
        "headers": encoded_headers(options.headers),
        "attributes": about,
    }
    limits = LifeLimits(options.run_timeout, options.execution_timeout)
    body = {
        "workflow": target.name,
        "version": target.version,
        "semantics": semantics.CURRENT,
        "workflow_id": workflow_id,
        "queue": queue,
        "priority": priority,
        **_pinned_as(options.pinned, target.options),
        **limits.to_body(),
        **{key: json.loads(value) for key, value in optional.items() if value is not None},
    }
    if options.details is not None:
        body["details"] = text("details", options.details, MAX_DETAILS)
    given = {
        "version": target.version,
        "priority": priority,
        "delay_s": seconds("delay", options.delay),
        "body": json.dumps(body),
        "payload": target.encode(args, arguments),
        "actor": who,
        "attributes": about,
        "memo": None if options.memo is None else _MEMO.encode(options.memo),
        "on_running": one_of("on_running", options.on_running, OnRunning),
        "on_closed": one_of("on_closed", options.on_closed, OnClosed),
        "on_end": on_end,
    }
    return workflow_id, calls.start_run(workflow_id, target.name, queue, given)


def _pinned_as(pinned: bool | None, options: dict[str, Any]) -> dict[str, Any]:
    """The workflow's options with this start's own word on pinning."""
    if pinned is None:
        return options
    others = {key: value for key, value in options.items() if key != "pinned"}
    return {**others, **({"pinned": True} if pinned else {})}


def build(value: str | None) -> str | None:
    """The name of a worker's build, checked; None is none."""
    return None if value is None else checked_name("build", value)


def signal(
    workflow_id: str,
    signal_name: str,
    payload: str,
    dedupe_key: str | None,
    given_actor: Any,
    headers: Mapping[str, Any] | None = None,
    *,
    require_actor: bool = False,
) -> Call[Sent[SignalReceipt]]:
    """`payload` is JSON text, already checked. Raises InvalidOption, ActorRequired."""
    who = actor(given_actor)
    if require_actor:
        refuse_without_actor("signal", signal_name, who)
    key = None if dedupe_key is None else text("dedupe_key", dedupe_key, MAX_ID)
    return calls.send_signal(
        text("id", workflow_id, MAX_ID),
        checked_name("signal", signal_name),
        payload,
        key,
        who,
        encoded_headers(headers),
    )


def failed_elsewhere(error: BaseException | str, *, retry: bool) -> Settlement:
    """How an attempt fails from outside: with an exception, or with a message."""
    if not isinstance(error, BaseException):
        error = RuntimeError(text("error", error, MAX_REASON))
    names = {name for each in (error, *leaves(error)) for name in failure_type_names(each)}
    final = not retry or is_excluded(RetryPolicy(), error)
    return Settlement(
        "ActivityFailed", failure=encode_failure(error), names=tuple(sorted(names)), final=final
    )


def reason(value: str | None) -> str | None:
    """The reason of a cancel or terminate, checked."""
    return None if value is None else text("reason", value, MAX_REASON)


# -- checks -----------------------------------------------------------------------------------------------------------


def text(option: str, value: Any, longest: int) -> str:
    """`value` if it is text that PostgreSQL can hold. Raises InvalidOption naming the option."""
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise _invalid(option, value, f"text of 1 to {longest} characters")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _invalid(option, value, "text without NUL and without lone surrogates")
    return value


def actor(value: Any) -> str | None:
    """Who acts, as JSON text: text, a JSON object, or a value of a context type. Raises InvalidOption."""
    return encoded_actor(value)


def seconds(option: str, value: timedelta | float | None) -> float:
    """A delay in seconds. Raises InvalidOption unless it is from 0 to ten years."""
    if value is None:
        return 0.0
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not 0 <= number <= _LONGEST_S
    ):
        raise _invalid(option, value, "a timedelta or seconds, from 0 to ten years")
    return float(number)


def timeout_s(value: timedelta | float | None) -> float:
    """How long to wait, in seconds; None waits for ever. Raises InvalidOption."""
    return math.inf if value is None else seconds("timeout", value)


def whole(option: str, value: Any, lowest: int, highest: int) -> int:
    """`value` if it is a whole number within the bounds. Raises InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise _invalid(option, value, f"a whole number from {lowest} to {highest}")
    return value


def one_of(option: str, value: Any, allowed: Any) -> Any:
    """`value` if it is one of the Literal's. Raises InvalidOption."""
    if value not in get_args(allowed):
        raise _invalid(option, value, " or ".join(repr(each) for each in get_args(allowed)))
    return value


def uuid(option: str, value: Any) -> UUID:
    """`value` as a UUID. Raises InvalidOption."""
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise _invalid(option, value, "a UUID") from error


def _invalid(option: str, value: Any, allowed: str) -> InvalidOption:
    shown = repr(value)
    return InvalidOption(
        f"{option} is {shown if len(shown) <= 80 else shown[:77] + '...'}; give {allowed}"
    )
