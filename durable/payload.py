"""Values to JSON text and back, checked against the author's annotations (C18).

The problem. Arguments and results are JSON text in a table, written by one process and read by
others, today and at every replay in the months to come. So what goes in must come out equal: same
types, same values. And the text itself is compared: a digest of the arguments tells replay whether
the code still does the same (C13).

What does not work. pydantic alone nearly does it, but with its defaults it loses things without a
word: NaN and infinity become `null` (in any model, however deep, and a setting on the outer adapter
does not reach inner models, which carry their own); bytes that are not UTF-8 raise, and bytes that
are come back as text in a union; a set is written in hash order, which differs between two
processes; a value annotated `Any` (or not at all) is written as whatever it resembles and read back
as a dict; NUL and deep nesting are written happily and refused later by PostgreSQL, or by the
parser at replay.

The solution. Take the schema that pydantic builds for an annotation and mend it once (`payload_schema.py`):
every config writes NaN as the token `NaN`, which is not JSON and so can be found in the text,
writes bytes as base64, and validates instances again, because they may have been changed since they
were made; every set is sorted by its members' JSON; every `Any` admits only what JSON carries. Then
compile it without the classes' prebuilt validators, which would bring the old settings back.
Encoding validates, dumps, and looks at the finished bytes with a few substring searches; only a
suspicious text is parsed to find the culprit and its path. Where the schema leaves room for doubt
(a union, whose members may look alike in JSON as in `datetime | str`; a custom validator or
serializer, as in SecretStr; an excluded field) the text is read back at once and compared with the
value, type by type, and a difference is an error.

Decoding is always `validate_json` on the text, live and in replay alike, so that both see the same
object.

Arguments are an object by parameter name; one compiled schema covers a whole signature. Defaults
that the caller did not give are not stored, so that the function's own default applies when it runs
(and a new optional parameter keeps old runs valid).

What can still fail. An instance of a subclass, passed where its base is annotated, is stored as the
base (pydantic's rule, and the reader sees what the annotation promises). Members of a union that
differ only inside a set, and objects that cannot be compared, are trusted.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NotRequired, Required, TypeVar

import pydantic
import pydantic_core
from typing_extensions import TypedDict  # pydantic refuses the one of typing before 3.12

from durable.errors import PayloadError
from durable.payload_schema import DEEPEST, compile_schema, short, without_outcomes

MAX_BYTES = 2 * 1024 * 1024

_largest = MAX_BYTES  # where nothing else is said; a payload store raises it, for the process


def allow_up_to(max_bytes: int) -> None:
    global _largest
    _largest = max(_largest, max_bytes)


_MOST_DIGITS = 4300  # so does int()
_EMPTY = inspect.Parameter.empty
_T = TypeVar("_T")


def digest(text: str) -> str:
    """16 hex characters that stand for `text` in history, to compare arguments by (C13)."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


# -- one value -------------------------------------------------------------------------------------


class ValueCodec:
    """Encodes and decodes values of one annotation.

    `field` names the value in errors; `max_bytes` bounds the encoded text. The schema is built at
    the first use, so an annotation may name a class that is defined later.
    """

    def __init__(
        self, annotation: Any, *, field: str = "value", max_bytes: int = MAX_BYTES
    ) -> None:
        self.annotation = Any if annotation is _EMPTY else annotation
        self.field = field
        self.max_bytes = max_bytes
        self._compiled: _Compiled | None = None

    def prepare(self) -> _Compiled:
        """Build the schema now. Raises PayloadError if the annotation's type cannot be stored."""
        if self._compiled is None:
            self._compiled = _compiled_for(self.annotation, self.field)
        return self._compiled

    def encode(self, value: Any) -> str:
        """`value` as JSON text. Raises PayloadError if it does not fit the annotation or is not
        storable.
        """
        return (self._compiled or self.prepare()).encode(value, self.field, self.max_bytes)

    def decode(self, text: str) -> Any:
        """The value back from JSON text. Raises PayloadError if the text does not fit the
        annotation.
        """
        return (self._compiled or self.prepare()).decode(text, self.field)

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the encoded value, for those who have no Python at hand."""
        self.prepare()
        return pydantic.TypeAdapter(self.annotation).json_schema()


def value_codec(annotation: Any) -> ValueCodec:
    """The codec of an annotation, shared by all who ask for the same one."""
    return _shared(_codecs, annotation, lambda: ValueCodec(annotation))


_codecs: dict[Any, ValueCodec] = {}
_schemas: dict[Any, _Compiled] = {}


def _compiled_for(annotation: Any, field: str) -> _Compiled:
    return _shared(_schemas, annotation, lambda: _compile(annotation, field))


def _shared(cache: dict[Any, _T], annotation: Any, make: Callable[[], _T]) -> _T:
    key = (
        annotation,
        str(annotation),
    )  # unions in another order are equal, but not the same to a parser
    try:
        known = cache.get(key)
    except TypeError:  # an unhashable annotation, as Annotated[int, Field(...)] may be
        return make()
    return known if known is not None else cache.setdefault(key, make())


class _Compiled:
    """A validator and a serializer over the same mended schema."""

    __slots__ = ("_doubtful", "_dump", "_read", "_validate")

    def __init__(self, schema: Any) -> None:
        validator, serializer, self._doubtful = compile_schema(schema)
        self._validate = validator.validate_python
        self._read = validator.validate_json
        self._dump = serializer.to_json

    def encode(self, value: Any, field: str, max_bytes: int) -> str:
        try:
            valid = self._validate(value, by_alias=True, by_name=True)
            raw = self._dump(valid, round_trip=True, warnings=False)
        except Exception as error:
            raise _refusal(error, field, _CALL) from error
        text = raw.decode()
        if (
            "N" in text or "I" in text or "\\u0" in text or len(raw) > 2 * DEEPEST
        ):  # bytes search is 5 times slower
            _inspect(raw, field, max_bytes)
        if self._doubtful:
            self._read_back(raw, valid, field)
        return text

    def _read_back(self, raw: bytes, value: Any, field: str) -> None:
        try:
            back = self._read(raw, by_alias=True, by_name=True)
            loss = next(_differences(value, back, ""), None)
        except Exception as error:
            raise _refusal(
                error, field, "The stored form does not fit its own type: mend its definition"
            ) from error
        if loss is not None:
            path, before, after = loss
            raise PayloadError(
                f"{field}{path}".lstrip("."),
                f"it would not come back as it is: {short(before)} would become {short(after)}",
                "Use a type whose JSON is not ambiguous: a tagged union, or no custom serializer.",
            )

    def decode(self, text: str | bytes, field: str) -> Any:
        try:
            return self._read(text, by_alias=True, by_name=True)
        except Exception as error:
            raise _refusal(error, field, _FIT) from error


def _compile(annotation: Any, field: str) -> _Compiled:
    try:
        return _Compiled(pydantic.TypeAdapter(annotation).core_schema)
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


def _differences(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ in type or content; objects that know no equality are equal if
    their attributes are.
    """
    if type(before) is not type(after):
        yield path, before, after
    elif isinstance(before, list | tuple) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{path}.{index}")
    elif isinstance(before, dict) and before.keys() == after.keys():
        for key, one in before.items():
            yield from _differences(one, after[key], f"{path}.{key}")
    elif isinstance(before, pydantic.BaseModel) or (
        dataclasses.is_dataclass(before) and hasattr(before, "__dict__")
    ):
        yield from _differences(vars(before), vars(after), path)
    elif not _knows_no_equality(type(before)) and before != after:
        yield path, before, after


def _knows_no_equality(cls: Any) -> bool:
    return cls.__eq__ is object.__eq__


# -- what the finished text must not contain -------------------------------------------------------


def _inspect(raw: bytes, field: str, max_bytes: int) -> None:
    """Raise PayloadError for text that PostgreSQL or the parser would refuse later."""
    limit = _largest if max_bytes == MAX_BYTES else max_bytes
    if len(raw) > limit:
        raise PayloadError(
            field,
            f"it takes {len(raw):,} bytes as JSON, the limit is {limit:,}",
            "Store it elsewhere and pass a reference, or use a payload store: durable.use_payloads(store=...).",
        )
    if b"NaN" in raw or b"Infinity" in raw or b"\\u0000" in raw:
        _find_culprit(raw, field)
    if raw.count(b"[") + raw.count(b"{") >= DEEPEST or len(raw) > _MOST_DIGITS:
        _try_parser(raw, field)


def _find_culprit(raw: bytes, field: str) -> None:
    for path, rule, remedy in _culprits(pydantic_core.from_json(raw, allow_inf_nan=True), ""):
        raise PayloadError(f"{field}{path}".lstrip("."), rule, remedy)


def _culprits(node: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, float) and not float("-inf") < node < float("inf"):
        yield path, f"{node} is not a JSON number", "Use None, or a number."
    elif isinstance(node, str) and "\x00" in node:
        yield (
            path,
            "the text contains a NUL character, which PostgreSQL cannot store",
            "Remove it, or use bytes.",
        )
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


# -- errors ----------------------------------------------------------------------------------------


_CALL = "Pass a value that fits the annotation"
_FIT = (
    "Run the code that wrote it, or give new parameters and fields a default and keep the old ones"
)
_NOT_JSON = re.compile(r"NotJson: (.*)", re.DOTALL)


def _refusal(error: Exception, field: str, remedy: str) -> PayloadError:
    if isinstance(error, pydantic.ValidationError):
        return _invalid(error, field, remedy)
    found = _NOT_JSON.search(str(error))
    if found is not None:
        return PayloadError(
            field, found.group(1), "Annotate it with its type, or pass JSON values."
        )
    if "surrogates not allowed" in str(error):
        return PayloadError(
            field,
            "the text contains a lone surrogate, which is not valid Unicode",
            "Remove it, or use bytes.",
        )
    return PayloadError(
        field,
        f"it cannot be written as JSON ({_first_line(error)})",
        "Pass JSON values, or mend the type.",
    )


def _invalid(error: pydantic.ValidationError, field: str, remedy: str) -> PayloadError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = ".".join((field, *map(str, first["loc"]))).lstrip(".")
    rule = _RULES.get(first["type"]) or f"{first['msg']} (got {short(first['input'])})"
    more = error.error_count() - 1
    if more:
        rule += f"; and {more} more"
    return PayloadError(path or "arguments", rule, f"{remedy}.")


_RULES = {
    "missing": "it is missing",
    "extra_forbidden": "there is no parameter or field of this name",
}


# -- a function's arguments ------------------------------------------------------------------------


class ArgumentsCodec:
    """Encodes and decodes the arguments of one function, and knows its result's codec (`.result`).

    `name` is the function's registered name, for errors. `injected` names parameters that the
    worker supplies (a transactional activity's connection); they are neither stored nor accepted.
    `localns` helps to resolve annotations that name classes local to a function; without it such an
    annotation is looked up in the function's module and closure, and if it is found in neither,
    counts as `Any` (and errors about that parameter say so).

    `*args` is stored as an array under its name, `**kwargs` as an object under its name. Schemas
    are built at the first use; `prepare()` builds them at once.
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
        self._parameters = {
            p.name: p for p in signature.parameters.values() if p.name not in injected
        }
        self._signature = signature.replace(parameters=list(self._parameters.values()))
        by_position = all(p.kind in _BY_POSITION for p in self._parameters.values())
        self._plain = tuple(self._parameters) if by_position else ()
        self._compiled: _Compiled | None = None
        self._result: ValueCodec | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that are stored, in order."""
        return tuple(self._parameters)

    @property
    def result(self) -> ValueCodec:
        """The codec of what the function returns (for a generator function, of what it returns
        in the end).
        """
        if self._result is None:
            returned = _returned(self._hints().get("return", Any))
            self._result = ValueCodec(
                returned, field=f"result of {self.name}", max_bytes=self.max_bytes
            )
        return self._result

    @property
    def positional(self) -> tuple[str, ...]:
        """The names of the parameters that can be given by position."""
        return tuple(n for n, p in self._parameters.items() if p.kind in _BY_POSITION)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The call as a JSON object by parameter name. Raises PayloadError naming the parameter."""
        if not self._parameters and not args and not kwargs:
            return "{}"
        if not kwargs and len(args) == len(self._plain):
            given = dict(zip(self._plain, args))  # noqa: B905  (the lengths were just compared)
        else:
            given = self._bind(args, kwargs)
        try:
            return (self._compiled or self.prepare()).encode(given, "", self.max_bytes)
        except PayloadError as error:
            raise self._explained(error, given) from error

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`(args, kwargs)` to call the function with. Raises PayloadError if the text does not
        fit the signature.
        """
        if text == "{}" and not self._parameters:
            return (), {}
        try:
            given = (self._compiled or self.prepare()).decode(text, "")
        except PayloadError as error:
            raise self._explained(error, {}) from error
        if self._plain and len(given) == len(self._plain):
            return tuple(given.values()), {}
        return self._spread(given)

    def prepare(self) -> _Compiled:
        """Build the schema now; a worker calls it at start. Raises PayloadError naming the
        parameter at fault.
        """
        if self._compiled is None:
            hints = self._hints()
            fields = {name: _field(p, hints.get(name, Any)) for name, p in self._parameters.items()}
            try:
                self._compiled = _Compiled(_arguments_schema(fields))
            except Exception:
                self._blame_a_type(hints)
                raise
        return self._compiled

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the encoded call: an object by parameter name."""
        self.prepare()
        hints = self._hints()
        fields = {name: _field(p, hints.get(name, Any)) for name, p in self._parameters.items()}
        return _arguments_adapter(fields).json_schema()

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            quoted = re.search(r"'([^']+)'", str(error))
            raise PayloadError(
                quoted.group(1) if quoted else "arguments",
                f"{error}, in a call of {self.name}",
                f"The signature is {self.name}{self._signature}.",
            ) from error

    def _spread(self, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional while nothing is left out, by name after that."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            if name not in given:
                continue
            if parameter.kind is _VAR_POSITIONAL:
                args.extend(given[name])
            elif parameter.kind is _VAR_KEYWORD:
                kwargs.update(given[name])
            elif parameter.kind in _BY_POSITION and len(args) == self._position(name):
                args.append(given[name])
            else:
                kwargs[name] = given[name]
        return tuple(args), kwargs

    def _position(self, name: str) -> int:
        return list(self._parameters).index(name)

    def _explained(self, error: PayloadError, given: Mapping[str, Any]) -> PayloadError:
        """The same refusal, saying which parameter and which function."""
        hints = self._hints()
        field = error.field or next(self._culprits(given, hints), "arguments")
        rule = f"{error.rule}, in the arguments of {self.name}"
        parameter = self._parameters.get(field.partition(".")[0])
        if (
            parameter is not None
            and parameter.annotation is not _EMPTY
            and parameter.name not in hints
        ):
            rule += f" (its annotation {parameter.annotation!r} could not be resolved: define the class in the module)"
        return PayloadError(field, rule, error.remedy)

    def _culprits(self, given: Mapping[str, Any], hints: Mapping[str, Any]) -> Iterator[str]:
        for name, value in given.items():
            stored = _stored_type(self._parameters[name], hints.get(name, Any))
            codec = ValueCodec(stored, field=name, max_bytes=self.max_bytes)
            try:
                codec.encode(value)
            except PayloadError as error:
                yield error.field

    def _blame_a_type(self, hints: Mapping[str, Any]) -> None:
        for name in self._parameters:
            ValueCodec(hints.get(name, Any), field=name).prepare()

    def _hints(self) -> dict[str, Any]:
        return _hints(self._fn, self._localns)


_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
_BY_POSITION = frozenset(
    {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
)


def _stored_type(parameter: inspect.Parameter, hint: Any) -> Any:
    if parameter.kind is _VAR_POSITIONAL:
        return tuple[hint, ...]
    return dict[str, hint] if parameter.kind is _VAR_KEYWORD else hint


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    stored = _stored_type(parameter, hint)
    optional = parameter.default is not _EMPTY or parameter.kind in (_VAR_POSITIONAL, _VAR_KEYWORD)
    return NotRequired[stored] if optional else Required[stored]


def _arguments_schema(fields: dict[str, Any]) -> Any:
    return _arguments_adapter(fields).core_schema


def _arguments_adapter(fields: dict[str, Any]) -> pydantic.TypeAdapter[Any]:
    make_typed_dict: Any = TypedDict  # type checkers want a literal here
    arguments = make_typed_dict("arguments", fields)
    arguments.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    return pydantic.TypeAdapter(arguments)


def _hints(fn: Callable[..., Any], localns: Mapping[str, Any] | None) -> dict[str, Any]:
    """The resolved annotations; one that names something unknown is missing here (and counts as
    Any).
    """
    fn = inspect.unwrap(fn)
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    cells = zip(names, getattr(fn, "__closure__", None) or (), strict=False)
    namespace = {**dict(_filled(cells)), **(localns or {})}
    globalns = getattr(fn, "__globals__", {})
    found = {
        name: _resolved(raw, globalns, namespace)
        for name, raw in getattr(fn, "__annotations__", {}).items()
    }
    return {name: hint for name, hint in found.items() if hint is not _EMPTY}


def _filled(cells: Iterable[tuple[str, types.CellType]]) -> Iterator[tuple[str, Any]]:
    for name, cell in cells:
        with contextlib.suppress(
            ValueError
        ):  # a cell that is still empty: the function's own name, while it is decorated
            yield name, cell.cell_contents


def _resolved(raw: Any, globalns: dict[str, Any], namespace: dict[str, Any]) -> Any:
    holder = type("holder", (), {"__annotations__": {"it": raw}})
    try:
        return typing.get_type_hints(holder, globalns, namespace, include_extras=True)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return _EMPTY


def _returned(hint: Any) -> Any:
    """What a call gives in the end: R of Generator[Y, S, R], T of Awaitable[T], else the hint."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return without_outcomes(hint)
    if typing.get_origin(hint) is list and typing.get_args(hint):
        return list[_returned(typing.get_args(hint)[0])]  # type: ignore[misc]
    position = _LAZY.get(typing.get_origin(hint) or hint) if _is_hashable(hint) else None
    if position is not None:
        parameters = typing.get_args(hint)
        return parameters[position] if len(parameters) > position else Any
    return Any if hint is typing.NoReturn or hint is typing.Never else hint


def _is_hashable(hint: Any) -> bool:
    try:
        hash(hint)
    except TypeError:
        return False
    return True


_LAZY: dict[Any, int] = {
    collections.abc.Generator: 2,
    collections.abc.Coroutine: 2,
    collections.abc.Awaitable: 0,
    collections.abc.Iterator: 9,  # a generator function annotated so does not say what it returns
    collections.abc.Iterable: 9,
}
