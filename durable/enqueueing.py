"""What `enqueue` and `enqueue_many` ask for, checked before anything is written (C18), as parameters of the store's statements."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Literal, NamedTuple
from uuid import UUID

from durable import requests
from durable.context import encoded_headers, refuse_without_actor
from durable.core.job_life import STATES, held_states
from durable.core.names import checked_name, checked_priority
from durable.definitions import Activity
from durable.errors import InvalidOption, PayloadError
from durable.ids import many_uuid7, uuid7
from durable.job_errors import BulkRefused
from durable.payload import ValueCodec
from durable.requests import Target
from durable.store.bulk import Bulk, own_row, queue_row, staged_row
from durable.store.shards import SHARD_KEYS, shard_of
from durable.unique import Unique

Item = tuple[Any, ...] | Mapping[str, Any]
"""The arguments of one job of many: by position, or by name."""

MAX_TAGS = 50
MAX_TAG = 100
MAX_KEY = 500
_SHOWN_ERRORS = 100
_PIECE = 64 * 1024  # bytes sent at a time, without what the rows share
_META = ValueCodec(dict[str, Any], field="meta", max_bytes=requests.MAX_ATTRIBUTES)
_FILTER = ValueCodec(dict[str, Any], field="filter")


class ItemKey(NamedTuple):
    """A partition or serial key that is a function of each item's arguments."""

    of: Callable[..., str]
    serial: bool

    def limits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """What the job of these arguments says about limits. Raises InvalidOption."""
        key = requests.text("the key of an item", self.of(*args, **kwargs), MAX_KEY)
        return {"limit_key": key, **({"serial": True} if self.serial else {})}


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The keyword options of `enqueue`, as given."""

    queue: str | None = None
    priority: int | None = None
    delay: timedelta | float | None = None
    at: datetime | None = None
    tags: Sequence[str] | None = None
    meta: Mapping[str, Any] | None = None
    unique: Unique | Literal[False] | None = None
    actor: Any = None
    headers: Mapping[str, Any] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    item_key: ItemKey | None = None

    def declared(self, target: Target) -> JobOptions:
        """These options, unique as the activity was declared where nothing is said. Raises InvalidOption."""
        chosen = target.unique if self.unique is None else self.unique or None
        if chosen and self.item_key:
            raise InvalidOption("give unique or a key function, not both")
        return self if chosen is self.unique else replace(self, unique=chosen)


def shared(target: Target, options: JobOptions) -> dict[str, Any]:
    """The parameters that are the same for every job of a call. Raises InvalidOption or PayloadError."""
    unique = options.unique or None
    if options.at is not None and options.delay is not None:
        raise InvalidOption("give at or delay, not both")
    return {
        "name": target.name,
        "queue": target.queue if options.queue is None else checked_name("queue", options.queue),
        "priority": target.priority
        if options.priority is None
        else checked_priority("priority", options.priority),
        "at_us": instant_us(options.at),
        "delay_s": requests.seconds("delay", options.delay),
        "options": json.dumps({**target.options, **_context(target, options), **options.limits}),
        "tags": tags(options.tags),
        "meta": None if options.meta is None else meta_text(options.meta),
        "states": None if unique is None else sorted(held_states(unique.states)),
        "period_s": None if unique is None else unique.period_s,
        "replace": None
        if unique is None or unique.replace_body is None
        else json.dumps(unique.replace_body),
    }


def item_limits(
    partition_key: str | Callable[..., str] | None,
    serial_key: str | Callable[..., str] | None,
    weight: float | None,
) -> tuple[dict[str, Any], ItemKey | None]:
    """What many jobs say about the limits of their queue: the same for all of them, and what each says for itself. Raises InvalidOption."""
    if partition_key is not None and serial_key is not None:
        raise InvalidOption("give partition_key or serial_key, not both")
    if callable(partition_key):
        return limit_options(None, None, weight), ItemKey(partition_key, serial=False)
    if callable(serial_key):
        return limit_options(None, None, weight), ItemKey(serial_key, serial=True)
    return limit_options(partition_key, serial_key, weight), None


def limit_options(
    partition_key: str | None, serial_key: str | None, weight: float | None
) -> dict[str, Any]:
    """What a job says about the limits of its queue. Raises InvalidOption."""
    if partition_key is not None and serial_key is not None:
        raise InvalidOption("give partition_key or serial_key, not both")
    found: dict[str, Any] = {}
    if partition_key is not None:
        found["limit_key"] = requests.text("partition_key", partition_key, MAX_KEY)
    if serial_key is not None:
        found |= {"limit_key": requests.text("serial_key", serial_key, MAX_KEY), "serial": True}
    if weight is not None:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e9:
            raise InvalidOption(f"weight is {weight!r}; give a number above 0")
        found["weight"] = weight
    return found


def _context(target: Target, options: JobOptions) -> dict[str, Any]:
    """The actor and the headers, where there are any. Raises ActorRequired, InvalidOption, PayloadError."""
    who = requests.actor(options.actor)
    if target.require_actor:
        refuse_without_actor("activity", target.name, who)
    context = {"actor": who, "headers": encoded_headers(options.headers)}
    return {key: json.loads(value) for key, value in context.items() if value is not None}


def one(
    target: Target,
    activity: Activity[..., Any] | None,
    args: tuple[Any, ...],
    arguments: Mapping[str, Any],
    options: JobOptions,
    id: UUID | None,
) -> tuple[str, dict[str, Any]]:
    """A job's id and all parameters of its enqueue. Raises InvalidOption or PayloadError."""
    given = shared(target, options)
    given["input"] = target.encode(args, arguments)
    given["key"] = None
    if not options.unique:
        return str(uuid7() if id is None else requests.uuid("id", id)), given
    if id is not None:
        raise InvalidOption(
            "give id or unique, not both: each says by itself which jobs are the same (unique=False: as if it were not declared)"
        )
    if callable(options.unique.key) and target.read is not None:
        args, arguments = target.read(given["input"])
    elif callable(options.unique.key) and activity is None:
        raise InvalidOption("a unique key by a function needs the activity itself, not its name")
    if activity is not None:
        options.unique.check_fields(activity.name, activity.arguments.parameters)
    given["key"] = options.unique.keys(target.name)(args, arguments, given["input"])
    return _id_on_shard(shard_of(given["key"])), given


def _id_on_shard(shard: int) -> str:
    """An id whose shard is that of its job's unique key, found by trying: 64 times on average, some 20 us."""
    wanted = SHARD_KEYS.index(shard)
    head = str(uuid7())[:-4]
    base = sha256(head.encode())
    while True:
        tail = os.urandom(2).hex()
        tried = base.copy()
        tried.update(tail.encode())
        if tried.digest()[0] % 64 == wanted:
            return head + tail


# -- many -------------------------------------------------------------------------------------------------------------


def many(
    target: Target,
    activity: Activity[..., Any],
    items: Iterable[Item],
    options: JobOptions,
    seal: Seal | None = None,
) -> Bulk:
    """The jobs of `items`, to be encoded while they are sent, and sealed where there is a codec. Raises InvalidOption or PayloadError about the options."""
    given = shared(target, options)
    if options.unique:
        options.unique.check_fields(activity.name, activity.arguments.parameters)
        row_of = _keyed_row(target, options.unique, "serial" in options.limits, seal or _plain)
    elif options.item_key:
        row_of = _own_row(target, options.item_key, given["options"], seal or _plain)
    else:
        row_of = _plain_row(target, seal or _plain)
    pieces = partial(_pieces, items, row_of)
    return Bulk(given, pieces, keyed=bool(options.unique), own_options=options.item_key is not None)


def one_by_one(
    target: Target, activity: Activity[..., Any], items: Iterable[Item], options: JobOptions
) -> list[tuple[str, dict[str, Any]]]:
    """The same jobs as single ones, for a few in memory. Raises BulkRefused, and what `one` raises about the options."""
    found, errors = [], []
    for index, item in enumerate(items):
        try:
            call = _call(item)
            own = options.item_key.limits(*call) if options.item_key else {}
            chosen = replace(options, limits={**options.limits, **own})
            found.append(one(target, activity, *call, chosen, None))
        except PayloadError as error:
            errors.append((index, error))
    if errors:
        raise BulkRefused(errors[:_SHOWN_ERRORS], len(errors))
    return found


Seal = Callable[[str], str]


def _plain(text: str) -> str:
    return text


_Row = Callable[[int, Item, str], bytes]


def _pieces(items: Iterable[Item], row_of: _Row, encoding: str) -> Iterator[list[bytes]]:
    """Pieces of COPY's input, some rows each, until an item is bad; then only the check goes on. Raises BulkRefused in the end."""
    errors: list[tuple[int, PayloadError]] = []
    bad = size = 0
    piece: list[bytes] = []
    for index, item in enumerate(items):
        try:
            row = row_of(index, item, encoding)
        except PayloadError as error:
            bad += 1
            errors += [(index, error)] if bad <= _SHOWN_ERRORS else []
            continue
        if bad:
            continue
        piece.append(row)
        size += len(row)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if bad:
        raise BulkRefused(errors, bad)
    yield piece


def _own_row(target: Target, key: ItemKey, options: str, seal: Seal) -> _Row:
    """Rows with options of their own: each has its key."""
    encode, ids, shared = target.encode, _ids(), json.loads(options)

    def row(_: int, item: Item, encoding: str) -> bytes:
        args, kwargs = _call(item)
        text = encode(args, kwargs)
        own = json.dumps({**shared, **key.limits(args, kwargs)})
        return own_row(next(ids), seal(text).encode(encoding), own.encode(encoding))

    return row


def _plain_row(target: Target, seal: Seal) -> _Row:
    encode, ids = target.encode, _ids()
    return lambda _, item, encoding: queue_row(
        next(ids), seal(encode(*_call(item))).encode(encoding)
    )


def _keyed_row(target: Target, unique: Unique, serial: bool, seal: Seal) -> _Row:
    keys = unique.keys(target.name)
    id_on = _ordered_id if serial else _IdsByShard().of

    def row(index: int, item: Item, encoding: str) -> bytes:
        args, kwargs = _call(item)
        text = target.encode(args, kwargs)
        key = keys(args, kwargs, text)
        placed = id_on(shard_of(key))
        return staged_row(placed, seal(text).encode(encoding), key.encode(encoding), index)

    return row


def _call(item: Item) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """An item as positional and named arguments. Raises PayloadError."""
    if isinstance(item, tuple):
        return item, {}
    if isinstance(item, Mapping):
        return (), item
    raise _not_an_item(item)


def _not_an_item(item: Any) -> PayloadError:
    return PayloadError(
        "item",
        f"it is {type(item).__name__}, neither a tuple of arguments nor a mapping by name",
        "Write (value,) for a single argument.",
    )


def _ids() -> Iterator[tuple[int, bytes]]:
    """Fresh ids with their shards, made by the hundred: about a microsecond each."""
    while True:
        for id_ in many_uuid7(256):
            text = id_.hex()
            dashed = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
            yield shard_of(dashed), id_


def _ordered_id(shard: int) -> tuple[int, bytes]:
    """An id on this shard, greater than those before it: what a serial key's jobs are in order by."""
    return shard, bytes.fromhex(_id_on_shard(shard).replace("-", ""))


class _IdsByShard:
    """Ids for wanted shards: those that fell on another shard wait for a key of theirs, so that about one is made for each job."""

    MOST_WAITING = 256

    def __init__(self) -> None:
        self._made = _ids()
        self._waiting: dict[int, list[bytes]] = {shard: [] for shard in SHARD_KEYS}

    def of(self, shard: int) -> tuple[int, bytes]:
        waiting = self._waiting[shard]
        while not waiting:
            found, id_ = next(self._made)
            if len(self._waiting[found]) < self.MOST_WAITING:
                self._waiting[found].append(id_)
        return shard, waiting.pop()


# -- looking for jobs -------------------------------------------------------------------------------------------------


def job_filters(
    *,
    state: str | Sequence[str] | None,
    activity: Any,
    queue: str | None,
    tags_given: Sequence[str] | None,
    meta: Mapping[str, Any] | None,
    arguments: Mapping[str, Any] | None,
    limit: int,
) -> dict[str, Any]:
    """The parameters of list_jobs. A filter that is given but empty is refused: it would match everything. Raises InvalidOption."""
    states = [state] if isinstance(state, str) else state
    for given, option in (
        (states, "state"),
        (tags_given, "tags"),
        (meta, "meta"),
        (arguments, "arguments"),
    ):
        if given is not None and not given:
            raise InvalidOption(f"{option} is empty; leave it out to match every job")
    for each in states or ():
        if each not in STATES:
            raise InvalidOption(f"state is {each!r}; give {' or '.join(STATES)}")
    name = activity.name if isinstance(activity, Activity) else activity
    return {
        "states": None if states is None else list(states),
        "name": None if name is None else checked_name("activity", name),
        "queue": None if queue is None else checked_name("queue", queue),
        "tags": tags(tags_given),
        "meta": None if meta is None else _FILTER.encode(dict(meta)),
        "arguments": None if arguments is None else _FILTER.encode(dict(arguments)),
        "limit": requests.whole("limit", limit, 1, 10_000),
    }


def meta_text(given: Mapping[str, Any]) -> str:
    """A job's meta as JSON text. Raises PayloadError."""
    return _META.encode(dict(given))


def tags(given: Sequence[str] | None) -> list[str] | None:
    """Tags trimmed, in lower case, each once (S148). Raises InvalidOption."""
    if given is None:
        return None
    if isinstance(given, str):
        raise InvalidOption(f"tags is {given!r}; give a list of texts")
    cleaned = dict.fromkeys(requests.text("tags", each, MAX_TAG).strip().lower() for each in given)
    cleaned.pop("", None)
    if len(cleaned) > MAX_TAGS:
        raise InvalidOption(f"there are {len(cleaned)} tags; give at most {MAX_TAGS}")
    return list(cleaned)


def instant_us(at: datetime | None) -> int | None:
    """A moment in microseconds since the epoch. Raises InvalidOption unless it has a time zone."""
    if at is None:
        return None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidOption(f"at is {at!r}; give a datetime with a time zone")
    return int(at.timestamp() * 1_000_000)
