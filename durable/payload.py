"""Values to JSON text and back, checked against the author's annotations (C18).

The problem. Arguments and results are JSON text in a table, written by one process and read by others, today and at
every replay in the months to come. So what goes in must come out equal: same types, same values. And the text itself
is compared: a digest of the arguments tells replay whether the code still does the same (C13).

What does not work. pydantic alone nearly does it, but with its defaults it loses things without a word: NaN and infinity
become `null` (in any model, however deep, and a setting on the outer adapter does not reach inner models, which
carry their own); bytes that are not UTF-8 raise, and bytes that are come back as text in a union; a set is written in hash order, which
differs between two processes; a value annotated `Any` (or not at all) is written as whatever it resembles and read
back as a dict; NUL and deep nesting are written happily and refused later by PostgreSQL, or by the parser at replay.

The solution. Take the schema that pydantic builds for an annotation and mend it once, in `_mend`: every config writes
NaN as the token `NaN`, which is not JSON and so can be found in the text, and writes bytes as base64; every set
is sorted by its members' JSON; every `Any` admits only what JSON carries. Then compile it without the classes' prebuilt validators,
which would bring the old settings back. Encoding validates, dumps, and looks at the finished bytes with a few substring
searches; only a suspicious text is parsed to find the culprit and its path. Decoding is always
`validate_json` on the text, live and in replay alike, so that both see the same object.

Arguments are an object by parameter name; one compiled schema covers a whole signature. Defaults that the caller did
not give are not stored, so that the function's own default applies when it runs (and a new optional parameter
keeps old runs valid).

What can still fail. An instance of a subclass, passed where its base is annotated, is stored as the base. A union
whose members look alike in JSON (`datetime | str`) is read back as the member that fits best: encoding compares the two and
refuses the value if the type changed. Custom serializers are the author's word and are not checked beyond that.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Annotated, Any

import pydantic
import pydantic_core
from pydantic_core import SchemaSerializer, SchemaValidator, core_schema
from typing_extensions import NotRequired, Required, TypedDict

from durable.errors import PayloadError

MAX_BYTES = 2 * 1024 * 1024

_CONFIG: dict[str, Any] = {"ser_json_inf_nan": "constants"}
_BYTES_CONFIG: dict[str, Any] = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
_DEEPEST = 190  # the JSON parser gives up at 200
_MOST_DIGITS = 4300  # so does int()
_SCALARS = frozenset({str, int, float, bool, type(None)})
_EMPTY = inspect.Parameter.empty


def digest(text: str) -> str:
    """16 hex characters that stand for `text` in history, to compare arguments by (C13)."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


# -- one value --------------------------------------------------------------------------------------------------------


class ValueCodec:
    """Encodes and decodes values of one annotation.

    `field` names the value in errors; `max_bytes` bounds the encoded text. The schema is built at the first use, so an
    annotation may name a class that is defined later.
    """

    def __init__(self, annotation: Any, *, field: str = "value", max_bytes: int = MAX_BYTES) -> None:
        self.annotation = Any if annotation is _EMPTY else annotation
        self.field = field
        self.max_bytes = max_bytes
        self._compiled: _Compiled | None = None

    def prepare(self) -> _Compiled:
        """Build the schema now. Raises PayloadError if the annotation's type cannot be stored."""
        if self._compiled is None:
            self._compiled = _compile(self.annotation, self.field)
        return self._compiled

    def encode(self, value: Any) -> str:
        """`value` as JSON text. Raises PayloadError if it does not fit the annotation or is not storable."""
        return (self._compiled or self.prepare()).encode(value, self.field, self.max_bytes)

    def decode(self, text: str) -> Any:
        """The value back from JSON text. Raises PayloadError if the text does not fit the annotation."""
        return (self._compiled or self.prepare()).decode(text, self.field)


_codecs: dict[Any, ValueCodec] = {}


def value_codec(annotation: Any) -> ValueCodec:
    """The codec of an annotation, shared by all who ask for the same one."""
    key = (annotation, str(annotation))  # unions in another order are equal, but not the same to a parser
    try:
        return _codecs.setdefault(key, _codecs.get(key) or ValueCodec(annotation))
    except TypeError:  # an unhashable annotation, as Annotated[int, Field(...)] may be
        return ValueCodec(annotation)


class _Compiled:
    """A validator and a serializer over the same mended schema."""

    __slots__ = ("_dump", "_read", "_validate")

    def __init__(self, schema: Any) -> None:
        validator = SchemaValidator(schema, _root_config(), _use_prebuilt=False)
        self._validate = validator.validate_python
        self._read = validator.validate_json
        self._dump = SchemaSerializer(schema, _root_config(), _use_prebuilt=False).to_json

    def encode(self, value: Any, field: str, max_bytes: int) -> str:
        try:
            raw = self._dump(self._validate(value), round_trip=True, warnings="error")
        except Exception as error:
            raise _refusal(error, field) from error
        if b"N" in raw or b"\\u0" in raw or b"Infinity" in raw or len(raw) > 400:
            _inspect(raw, field, max_bytes)
        return raw.decode()

    def decode(self, text: str, field: str) -> Any:
        try:
            return self._read(text, by_alias=True, by_name=True)
        except Exception as error:
            raise _refusal(error, field) from error


def _root_config() -> Any:
    return core_schema.CoreConfig(**_CONFIG, **_BYTES_CONFIG)


def _compile(annotation: Any, field: str) -> _Compiled:
    try:
        return _Compiled(_mend(pydantic.TypeAdapter(annotation).core_schema))
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(
            field,
            f"the type {_type_text(annotation)} cannot be stored as JSON ({_first_line(error)})",
            "Annotate it with a pydantic model, a dataclass, or another type that pydantic knows.",
        ) from error


def _type_text(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


# -- mending pydantic's schema ----------------------------------------------------------------------------------------

_NOT_SCHEMAS = frozenset({"metadata", "default", "expected", "members", "cls", "config", "function", "ref"})


def _mend(node: Any) -> Any:
    """A copy of a core schema in which nothing is lost without an error (see the essay above)."""
    if isinstance(node, list):
        return [_mend(item) for item in node]
    if isinstance(node, tuple):
        return tuple(_mend(item) for item in node)
    if not isinstance(node, dict):
        return node
    mended = {key: value if key in _NOT_SCHEMAS else _mend(value) for key, value in node.items()}
    if isinstance(mended.get("config"), dict):
        mended["config"] = _mended_config(mended["config"])
    mend = _MENDERS.get(str(mended.get("type")))
    return mend(mended) if mend is not None and "serialization" not in mended else mended


def _mended_config(config: dict[str, Any]) -> dict[str, Any]:
    chosen = "ser_json_bytes" in config or "val_json_bytes" in config
    return {**({} if chosen else _BYTES_CONFIG), **config, **_CONFIG}


def _mend_set(node: dict[str, Any]) -> dict[str, Any]:
    node.setdefault("items_schema", _mend_any({"type": "any"}))
    return {**node, "serialization": core_schema.wrap_serializer_function_ser_schema(_sorted_members)}


def _sorted_members(value: Any, handler: Callable[[Any], Any]) -> Any:
    return sorted(handler(value), key=pydantic_core.to_json)


def _mend_any(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "serialization": core_schema.plain_serializer_function_ser_schema(_only_json)}


_MENDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "set": _mend_set,
    "frozenset": _mend_set,
    "any": _mend_any,
}


class _NotJson(ValueError):
    """A value where JSON's own types are needed; the message says which."""


def _only_json(value: Any, depth: int = 0) -> Any:
    """Let through what JSON carries as it is; a tuple passes as an array."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth > _DEEPEST:
        raise _NotJson("it is nested too deeply or contains itself")
    if kind is list or kind is tuple:
        return [_only_json(item, depth + 1) for item in value]
    if kind is dict:
        return {_only_key(key): _only_json(item, depth + 1) for key, item in value.items()}
    raise _NotJson(f"a value of type {kind.__module__}.{kind.__qualname__} has no annotation that says how to store it")


def _only_key(key: Any) -> str:
    if type(key) is not str:
        raise _NotJson(f"the dict key {key!r} is not a str, and would come back as one")
    return key


# -- what the finished text must not contain --------------------------------------------------------------------------


def _inspect(raw: bytes, field: str, max_bytes: int) -> None:
    """Raise PayloadError for text that PostgreSQL or the parser would refuse later."""
    if len(raw) > max_bytes:
        raise PayloadError(
            field,
            f"it takes {len(raw):,} bytes as JSON, the limit is {max_bytes:,}",
            "Store the data elsewhere and pass a reference to it.",
        )
    if b"NaN" in raw or b"Infinity" in raw or b"\\u0000" in raw:
        _find_culprit(raw, field)
    if len(raw) > 2 * _DEEPEST:
        _try_parser(raw, field)


def _find_culprit(raw: bytes, field: str) -> None:
    for path, rule, remedy in _culprits(pydantic_core.from_json(raw, allow_inf_nan=True), ""):
        raise PayloadError(f"{field}{path}".lstrip("."), rule, remedy)


def _culprits(node: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, float) and not float("-inf") < node < float("inf"):
        yield path, f"{node} is not a JSON number", "Use None, or a number."
    elif isinstance(node, str) and "\x00" in node:
        yield path, "the text contains a NUL character, which PostgreSQL cannot store", "Remove it, or use bytes."
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _culprits(item, f"{path}.{index}")
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from _culprits(key, f"{path}.{key!r}")
            yield from _culprits(item, f"{path}.{key}")


def _try_parser(raw: bytes, field: str) -> None:
    try:
        pydantic_core.from_json(raw)
    except ValueError as error:
        raise PayloadError(
            field, f"it cannot be read back ({error})", "Flatten the data, or pass it as a string."
        ) from error


# -- errors -----------------------------------------------------------------------------------------------------------


def _refusal(error: Exception, field: str) -> PayloadError:
    if isinstance(error, PayloadError):
        return error
    if isinstance(error, pydantic.ValidationError):
        return _invalid(error, field)
    cause = error.__cause__
    rule = str(cause) if isinstance(cause, _NotJson) else f"it cannot be written as JSON ({_first_line(error)})"
    return PayloadError(field, rule, "Annotate it with its type, or pass JSON values (str, int, float, bool, None, list, dict).")


def _invalid(error: pydantic.ValidationError, field: str) -> PayloadError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = ".".join((field, *map(str, first["loc"]))).lstrip(".")
    rule = first["msg"]
    if first["type"] not in ("missing", "extra_forbidden"):
        rule += f" (got {_short(first['input'])})"
    more = error.error_count() - 1
    remedy = "Pass a value that fits the annotation." if not more else f"Pass a value that fits; {more} more errors follow."
    return PayloadError(path or "value", rule, remedy)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as broken:
        text = f"<{type(value).__name__} whose repr raised {type(broken).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


# -- a function's arguments -------------------------------------------------------------------------------------------


class ArgumentsCodec:
    """Encodes and decodes the arguments of one function, and knows its result's codec (`.result`).

    `name` is the function's registered name, for errors. `injected` names parameters that the worker supplies (a
    transactional activity's connection); they are neither stored nor accepted. `localns` helps to resolve annotations
    that name classes local to a function; without it such an annotation is looked up in the function's module and closure,
    and if it is found in neither, counts as `Any`.

    `*args` is stored as an array under its name, `**kwargs` as an object under its name.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str,
        injected: tuple[str, ...] = (),
        localns: Mapping[str, Any] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self._fn = fn
        self._localns = localns
        signature = inspect.signature(fn)
        self._parameters = {p.name: p for p in signature.parameters.values() if p.name not in injected}
        self._signature = signature.replace(parameters=list(self._parameters.values()))
        kinds = [p.kind for p in self._parameters.values()]
        self._plain = tuple(self._parameters) if set(kinds) <= _BY_POSITION else ()
        self._compiled: _Compiled | None = None
        self._result: ValueCodec | None = None

    @property
    def result(self) -> ValueCodec:
        """The codec of what the function returns (for a generator function, of what it returns in the end)."""
        if self._result is None:
            self._result = value_codec(_returned(self._hints().get("return", Any)))
        return self._result

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The call as a JSON object by parameter name. Raises PayloadError naming the parameter."""
        if not self._parameters and not args and not kwargs:
            return "{}"
        if not kwargs and len(args) == len(self._plain):
            given = dict(zip(self._plain, args, strict=True))
        else:
            given = self._bind(args, kwargs)
        return (self._compiled or self.prepare()).encode(given, "", self.max_bytes)

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The `(args, kwargs)` to call the function with. Raises PayloadError if the text does not fit the signature."""
        if text == "{}" and not self._parameters:
            return (), {}
        given = (self._compiled or self.prepare()).decode(text, "")
        if self._plain and len(given) == len(self._plain):
            return tuple(given.values()), {}
        return self._spread(given)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise PayloadError(
                self._culprit(str(error)), f"{self.name}{self._signature}: {error}", "Pass the arguments of the signature."
            ) from error

    def _culprit(self, message: str) -> str:
        quoted = re.search(r"'([^']+)'", message)
        return quoted.group(1) if quoted else "arguments"

    def _spread(self, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional while nothing is left out, by name after that."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        in_order = True
        for name, parameter in self._parameters.items():
            in_order = in_order and (name in given or parameter.kind is _VAR_POSITIONAL)
            if name not in given:
                continue
            if parameter.kind is _VAR_POSITIONAL:
                args.extend(given[name])
            elif parameter.kind is _VAR_KEYWORD:
                kwargs.update(given[name])
            elif parameter.kind in _BY_POSITION and in_order:
                args.append(given[name])
            else:
                kwargs[name] = given[name]
        return tuple(args), kwargs

    def prepare(self) -> _Compiled:
        """Build the schema now; a worker calls it at start. Raises PayloadError naming the parameter at fault."""
        if self._compiled is None:
            hints = self._hints()
            fields = {name: _field(p, hints.get(name, Any)) for name, p in self._parameters.items()}
            try:
                self._compiled = _Compiled(_mend(_arguments_schema(fields)))
            except Exception:
                for name, parameter in self._parameters.items():
                    ValueCodec(hints.get(name, Any), field=name).prepare()
                raise
        return self._compiled

    def _hints(self) -> dict[str, Any]:
        return _hints(self._fn, self._localns)


_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_BY_POSITION = frozenset({inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD})


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    if parameter.kind is _VAR_POSITIONAL:
        return NotRequired[tuple[hint, ...]]
    if parameter.kind is _VAR_KEYWORD:
        return NotRequired[dict[str, hint]]
    return Required[hint] if parameter.default is _EMPTY else NotRequired[hint]


def _arguments_schema(fields: dict[str, Any]) -> Any:
    arguments = TypedDict("arguments", fields)  # type: ignore[operator]
    arguments.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    return pydantic.TypeAdapter(arguments).core_schema


def _hints(fn: Callable[..., Any], localns: Mapping[str, Any] | None) -> dict[str, Any]:
    """The resolved annotations; one that names something unknown is missing (and counts as Any)."""
    fn = inspect.unwrap(fn)
    namespace = {**inspect.getclosurevars(fn).nonlocals, **(localns or {})}
    raw = getattr(fn, "__annotations__", {})
    globalns = getattr(fn, "__globals__", {})
    return {name: _resolved(value, globalns, namespace) for name, value in raw.items()}


def _resolved(annotation: Any, globalns: dict[str, Any], namespace: dict[str, Any]) -> Any:
    holder = type("holder", (), {"__annotations__": {"it": annotation}})
    try:
        return typing.get_type_hints(holder, globalns, namespace, include_extras=True)["it"]
    except NameError:
        return Any


def _returned(hint: Any) -> Any:
    """What a call gives in the end: R of Generator[Y, S, R], T of Awaitable[T], the hint itself otherwise."""
    origin, parameters = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated or origin is None:
        bare = hint in _LAZY or hint in (typing.NoReturn, typing.Never)
        return Any if bare else hint
    if origin not in _LAZY:
        return hint
    return parameters[_LAZY[origin]] if len(parameters) > _LAZY[origin] else Any


_LAZY: dict[Any, int] = {
    collections.abc.Generator: 2,
    collections.abc.Iterator: 9,
    collections.abc.Iterable: 9,
    collections.abc.Coroutine: 2,
    collections.abc.Awaitable: 0,
}
