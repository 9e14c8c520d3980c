"""Exceptions to JSON and back (C7).

The problem. An exception raised in an activity has to arrive in the workflow, hours later, in
another process, and once more at every replay: the same class, so that `except PaymentDeclined`
works; the same message, attributes, cause, context, notes and group members; and the traceback, for
whoever reads it.

What does not work. Pickle runs code that the stored bytes choose. Calling `cls(*exc.args)` breaks
on every class whose constructor composes its message (`super().__init__(f"order {id} failed")`):
the message is composed twice, or a parameter is missing. Importing the module named in the data
lets a database row import anything.

The solution. We store the class's name, `args` and those attributes that are JSON or of types that we know (`failure_values.py`). We rebuild only
classes that are already imported, and without running Python constructors: `cls.__new__`, then
`args`, then the built-in base's `__init__` (OSError and UnicodeError keep C-level state there),
then the attributes. Only if that gives an exception that cannot even print itself we try the
constructor, and if its text is another one, fall back to `RemoteError`, which carries the text. Classes that are not
`Exception` are not rebuilt, except CancelledError: a KeyboardInterrupt that a database row raises
would stop the worker. Neither is StopIteration, which no coroutine or future can carry.

What can still fail. Attributes and args that are not JSON are left out, and named in `omitted`.
Everything is bounded (depth, number of exceptions, text) and what was cut says so in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from durable.errors import RemoteError
from durable.failure_values import TAG, tagged, untagged

MAX_DEPTH = 12
MAX_EXCEPTIONS = 64
MAX_MESSAGE = 8_192
MAX_TRACEBACK = 16_384
MAX_VALUE = 8_192
MAX_NOTES = 16
MAX_TEXT = 262_144

REMOTE_HEADING = "Traceback where it was raised (most recent call last):\n"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_OWN_ATTRIBUTES = frozenset({"__notes__", "remote_traceback"})


def type_name(cls: type) -> str:
    """A class as `module:qualname`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def failure_type_names(exc: BaseException) -> list[str]:
    """The names under which `exc` can be listed as not retryable (C6): its classes, most specific
    first.

    Each class counts as `module:qualname`, `module.qualname` and by its bare name. A `RemoteError`
    counts as what it stands for too.
    """
    names: dict[str, None] = {}
    if isinstance(exc, RemoteError):
        names.update(dict.fromkeys(_spellings(*_split(exc.type_name))))
    for cls in type(exc).__mro__[:-1]:
        names.update(dict.fromkeys(_spellings(cls.__module__, cls.__qualname__)))
    return list(names)


def _spellings(module: str, qualname: str) -> tuple[str, str, str]:
    return f"{module}:{qualname}", f"{module}.{qualname}", qualname.rpartition(".")[2]


def _split(name: str) -> tuple[str, str]:
    module, _, qualname = name.rpartition(":")
    return module, qualname


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group, groups in groups flattened, in order; any other exception
    is its own leaf (C7).
    """
    pending = [exc]
    while pending:
        current = pending.pop()
        if isinstance(current, BaseExceptionGroup):
            pending.extend(reversed(current.exceptions))
        else:
            yield current


# -- encoding --------------------------------------------------------------------------------------


def encode_failure(exc: BaseException) -> dict[str, Any]:
    """`exc` and all that hangs on it as a JSON object; never raises, whatever the exception does.

    Keys: `type`, `message`, and where there is one `args`, `state` (attributes), `omitted` (what is
    not JSON), `notes`, `traceback`, `cause`, `context`, `group`. Text is cleaned of NUL and lone
    surrogates. Bounded; see `MAX_*`.
    """
    return _Encoder().encode(exc, 0)


class _Encoder:
    """One encoding: what is open above us (cycles), and what is left of the budget."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._exceptions_left = MAX_EXCEPTIONS
        self._text_left = MAX_TEXT

    def encode(self, exc: BaseException, depth: int) -> dict[str, Any]:
        self._exceptions_left -= 1
        self._open.add(id(exc))
        body: dict[str, Any] = {
            "type": self._text(type_name(type(exc)), MAX_MESSAGE),
            "message": self._text(_message(exc), MAX_MESSAGE),
        }
        body.update(self._values(exc))
        optional = {
            "notes": self._notes(exc),
            "traceback": self._traceback(exc),
            "cause": self._linked(exc.__cause__, depth),
            "context": None if exc.__suppress_context__ else self._linked(exc.__context__, depth),
            "group": self._members(exc, depth),
        }
        body.update((key, value) for key, value in optional.items() if value)
        self._open.discard(id(exc))
        return body

    def _linked(self, exc: BaseException | None, depth: int) -> dict[str, Any] | None:
        if exc is None:
            return None
        if id(exc) in self._open:
            return _cut_mark(exc, "a cycle in the chain of causes")
        if depth + 1 >= MAX_DEPTH or self._exceptions_left <= 0 or self._text_left <= 0:
            return _cut_mark(exc, "the failure is too large; the rest was cut")
        return self.encode(exc, depth + 1)

    def _members(self, exc: BaseException, depth: int) -> list[dict[str, Any] | None] | None:
        if not isinstance(exc, BaseExceptionGroup):
            return None
        encoded = [self._linked(member, depth) for member in exc.exceptions[:MAX_EXCEPTIONS]]
        if cut := len(exc.exceptions) - len(encoded):
            encoded.append(_cut_mark(exc, f"{cut} more members were cut"))
        return encoded

    def _values(self, exc: BaseException) -> dict[str, Any]:
        omitted: list[str] = []
        values: dict[str, Any] = {}
        if not isinstance(exc, BaseExceptionGroup):
            self._put(values, "args", _args(exc), omitted)
        state: dict[str, Any] = {}
        for name, value in list(vars(exc).items()):
            if name not in _OWN_ATTRIBUTES:
                self._put(state, self._text(name, MAX_MESSAGE), value, omitted)
        if state:
            values["state"] = state
        if omitted:
            values["omitted"] = omitted
        return values

    def _put(self, into: dict[str, Any], name: str, value: Any, omitted: list[str]) -> None:
        if name == "args" and isinstance(value, list) and not value:
            return
        text = _json_or_none(value)
        if text is None:
            text = _tagged_or_none(value)
        elif TAG in text:  # it would come back as something else
            text = None
        if text is None or len(text) > min(MAX_VALUE, self._text_left):
            omitted.append(name)
            return
        self._text_left -= len(text)
        into[name] = json.loads(text)

    def _notes(self, exc: BaseException) -> list[str]:
        notes = getattr(exc, "__notes__", None)
        if not isinstance(notes, list):
            return []
        own = [
            note for note in notes if isinstance(note, str) and not note.startswith(REMOTE_HEADING)
        ]
        kept = [self._text(note, MAX_MESSAGE) for note in own[:MAX_NOTES]]
        return kept if len(own) <= MAX_NOTES else [*kept, f"... [{len(own) - MAX_NOTES} notes cut]"]

    def _traceback(self, exc: BaseException) -> str:
        earlier = getattr(exc, "remote_traceback", "")
        with contextlib.suppress(
            Exception
        ):  # a broken __loader__ or source file must not hide the failure itself
            frames = "".join(traceback.format_tb(exc.__traceback__, limit=-40))
            return self._text(
                (earlier if isinstance(earlier, str) else "") + frames, MAX_TRACEBACK, keep_end=True
            )
        return "[the traceback could not be formatted]"

    def _text(self, text: str, limit: int, *, keep_end: bool = False) -> str:
        limit = max(min(limit, self._text_left), 0)
        self._text_left -= min(len(text), limit)
        text = _UNSTORABLE.sub("\ufffd", text)
        if len(text) <= limit:
            return text
        mark = f"... [{len(text) - limit} characters cut]"
        return f"{mark}\n{text[len(text) - limit :]}" if keep_end else text[:limit] + mark


def _args(exc: BaseException) -> list[Any]:
    if isinstance(exc, OSError) and len(exc.args) == 2 and exc.filename is not None:
        return [*exc.args, exc.filename]  # OSError takes the file name out of its args
    return list(exc.args)


def _message(exc: BaseException) -> str:
    if isinstance(exc, BaseExceptionGroup):
        return str(exc.message)
    try:
        return str(exc)
    except Exception as broken:
        return f"[its __str__ raised {type(broken).__name__}]"


def _cut_mark(exc: BaseException, why: str) -> dict[str, Any]:
    name = _UNSTORABLE.sub("\ufffd", type_name(type(exc)))[:MAX_MESSAGE]
    return {"type": name, "message": f"[{why}]", "cut": True}


def _json_or_none(value: Any) -> str | None:
    """`value` as JSON text, or None if it would not come back as it is."""
    try:
        text = json.dumps(value, allow_nan=False)
        if json.loads(text) != _tuples_as_lists(value) or _UNSTORABLE.search(
            json.dumps(value, ensure_ascii=False)
        ):
            return None
    except (TypeError, ValueError, RecursionError):
        return None
    return None if _ESCAPED_NUL.search(text) else text


def _tagged_or_none(value: Any) -> str | None:
    """JSON text of a value that JSON has no type for, or None if it could not be rebuilt."""
    try:
        form = tagged(value)
        return None if untagged(form) != _tuples_as_lists(value) else _json_or_none(form)
    except Exception:  # any object may refuse to be looked at
        return None


def _tuples_as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_tuples_as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _tuples_as_lists(item) for key, item in value.items()}
    return value


# -- decoding --------------------------------------------------------------------------------------


def decode_failure(failure: Mapping[str, Any]) -> BaseException:
    """The exception that `encode_failure` stored, with its chain; whatever its class, never raises.

    The class is rebuilt if it is an Exception (or CancelledError) that this process has imported;
    otherwise a `RemoteError` stands in. The remote traceback is the attribute `remote_traceback`
    and a note.
    """
    exc = _rebuilt(failure)
    if (cause := failure.get("cause")) is not None:
        exc.__cause__ = decode_failure(cause)
    if (context := failure.get("context")) is not None:
        exc.__context__ = decode_failure(context)
    for note in failure.get("notes", ()):
        exc.add_note(note)
    _keep_message(exc, str(failure.get("message", "")))
    if text := failure.get("traceback"):
        exc.remote_traceback = text  # type: ignore[attr-defined]
        exc.add_note(REMOTE_HEADING + text)
    return exc


def _keep_message(exc: BaseException, message: str) -> None:
    """Add the message as a note where the rebuilt exception does not print it (args were omitted)."""
    if message not in str(exc) and message not in getattr(exc, "__notes__", ()):
        exc.add_note(message)


def _rebuilt(failure: Mapping[str, Any]) -> BaseException:
    name, message = str(failure.get("type", "?")), str(failure.get("message", ""))
    cls = None if failure.get("cut") else _imported_class(name)
    if cls is not None:
        for build in (_without_constructor, _with_constructor):
            with contextlib.suppress(
                Exception
            ):  # any class of the author's may refuse; RemoteError is the answer
                exc = build(cls, failure)
                if isinstance(exc, cls) and _prints(exc):
                    return exc
    return _stand_in(name, message, failure)


def _prints(exc: BaseException) -> bool:
    """A class whose `__str__` needs what was not stored raises here, not later in somebody's log."""
    return isinstance(f"{exc} {exc!r}", str)


def _stand_in(name: str, message: str, failure: Mapping[str, Any]) -> BaseException:
    members = failure.get("group")
    if not members:
        return RemoteError(name, message)
    return BaseExceptionGroup(f"{name}: {message}", [decode_failure(member) for member in members])


def _imported_class(name: str) -> type[BaseException] | None:
    module_name, qualname = _split(name)
    found: Any = sys.modules.get(module_name)
    if found is None or not qualname:
        return None
    for part in qualname.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if not isinstance(found, type) or not _may_be_raised(found):
        return None
    return found


def _may_be_raised(cls: type) -> bool:
    if issubclass(cls, StopIteration | StopAsyncIteration):
        return False
    return issubclass(cls, Exception | asyncio.CancelledError | BaseExceptionGroup)


def _arguments(failure: Mapping[str, Any]) -> tuple[Any, ...]:
    if "group" in failure:
        return str(failure.get("message", "")), [
            decode_failure(member) for member in failure["group"]
        ]
    if "args" in failure:
        return tuple(untagged(failure["args"]))
    return (failure["message"],) if failure.get("message") else ()


def _without_constructor(cls: type[BaseException], failure: Mapping[str, Any]) -> BaseException:
    args = _arguments(failure)
    exc = cls.__new__(cls, *args)
    with contextlib.suppress(
        TypeError, ValueError
    ):  # a UnicodeError whose bytes were omitted: args are all it has
        _builtin_init(cls)(exc, *args)
    vars(exc).update(untagged(failure.get("state", {})))
    return exc


def _builtin_init(cls: type[BaseException]) -> Any:
    """The first `__init__` of the class that is not written in Python."""
    inits = (base.__dict__["__init__"] for base in cls.__mro__ if "__init__" in base.__dict__)
    return next(init for init in inits if type(init) is type(BaseException.__init__))


def _with_constructor(cls: type[BaseException], failure: Mapping[str, Any]) -> BaseException:
    exc = cls(*_arguments(failure))
    vars(exc).update(untagged(failure.get("state", {})))
    if str(exc) != failure.get("message"):
        raise ValueError("the constructor composed another message")
    return exc
