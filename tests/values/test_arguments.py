from __future__ import annotations

import asyncio
import datetime as dt
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from durable.errors import PayloadError
from durable.payload import ArgumentsCodec

if TYPE_CHECKING:
    from nowhere import Ghost  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]


class Order(BaseModel):
    id: str
    at: dt.datetime | None = None


def codec(fn: Callable[..., Any], **options: Any) -> ArgumentsCodec:
    return ArgumentsCodec(fn, name=fn.__name__, **options)


def nothing() -> None: ...
def one(order: Order) -> str: ...  # type: ignore[empty-body]
def two(name: str, count: int = 1) -> None: ...
def bare(a, b=2): ...  # type: ignore[no-untyped-def]
def every(
    a: int, /, b: bytes = b"", *rest: dt.timedelta, key: int, opt: int = 3, **more: Order
) -> None: ...
def gap(a: int = 1, b: int = 2, c: int = 3) -> None: ...
def odd(self, cls, model_config, _x, schema, **model_fields): ...  # type: ignore[no-untyped-def]
def later(x: Later) -> Later: ...  # type: ignore[empty-body]
def ghostly(a: Ghost, b: int) -> Ghost: ...
def limited(amount: Annotated[int, Field(gt=0)]) -> None: ...


class Later(BaseModel):
    y: int


DAY = dt.timedelta(days=1)
CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str, tuple[Any, ...], dict[str, Any]]] = [
    (nothing, (), {}, "{}", (), {}),
    (one, (Order(id="a"),), {}, '{"order":{"id":"a","at":null}}', (Order(id="a"),), {}),
    (one, (), {"order": {"id": "a"}}, '{"order":{"id":"a","at":null}}', (Order(id="a"),), {}),
    (two, ("x", 3), {}, '{"name":"x","count":3}', ("x", 3), {}),
    (two, ("x",), {}, '{"name":"x"}', ("x",), {}),
    (two, (), {"count": 3, "name": "x"}, '{"name":"x","count":3}', ("x", 3), {}),
    (bare, (1,), {}, '{"a":1}', (1,), {}),
    (bare, ([1], {"k": None}), {}, '{"a":[1],"b":{"k":null}}', ([1], {"k": None}), {}),
    (gap, (), {}, "{}", (), {}),
    (gap, (), {"c": 5}, '{"c":5}', (), {"c": 5}),
    (gap, (7,), {"c": 5}, '{"a":7,"c":5}', (7,), {"c": 5}),
    (every, (1,), {"key": 2}, '{"a":1,"key":2}', (1,), {"key": 2}),
    (
        every,
        (1, b"\xff", DAY),
        {"key": 2, "a": Order(id="o")},
        '{"a":1,"b":"_w==","rest":["P1D"],"key":2,"more":{"a":{"id":"o","at":null}}}',
        (1, b"\xff", DAY),
        {"key": 2, "a": Order(id="o")},
    ),
    (odd, (1, 2, 3, 4, 5), {"x": 6}, '{"self":1,"cls":2,"model_config":3,"_x":4,"schema":5,"model_fields":{"x":6}}',
     (1, 2, 3, 4, 5), {"x": 6}),
    (later, (Later(y=1),), {}, '{"x":{"y":1}}', (Later(y=1),), {}),
    (ghostly, ({"any": 1}, 2), {}, '{"a":{"any":1},"b":2}', ({"any": 1}, 2), {}),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "kwargs", "text", "back_args", "back_kwargs"), CALLS)
def test_calls_survive(
    fn: Any, args: Any, kwargs: Any, text: str, back_args: Any, back_kwargs: Any
) -> None:
    arguments = codec(fn)
    assert arguments.encode(args, kwargs) == text
    assert arguments.decode(text) == (back_args, back_kwargs)
    assert arguments.encode(*arguments.decode(text)) == text


REFUSED_CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str, str]] = [
    (nothing, (1,), {}, "arguments", "too many positional arguments"),
    (nothing, (), {"x": 1}, "x", "unexpected keyword argument 'x'"),
    (one, (), {}, "order", "missing"),
    (two, (), {}, "name", "missing"),
    (two, ("a", 1, 2), {}, "arguments", "too many positional"),
    (two, ("a",), {"name": "b"}, "name", "multiple values"),
    (two, ("a", "b"), {}, "count", "valid integer"),
    (two, ("a\0",), {}, "name", "NUL"),
    (two, ("\ud800",), {}, "name", "surrogate"),
    (bare, (1, {3}), {}, "b", "builtins.set"),
    (bare, (1, [float("nan")]), {}, "b.0", "nan"),
    (bare, (Order(id="a"),), {}, "a", "Order has no annotation"),
    (one, ({"id": 3},), {}, "order.id", "valid string"),
    (every, (1, b"", 5, "x"), {"key": 1}, "rest.1", "valid"),
    (every, (1,), {"key": 1, "q": 3}, "more.q", "valid"),
    (limited, (0,), {}, "amount", "greater than 0"),
    (ghostly, (Order(id="a"), 1), {}, "a", "annotation 'Ghost' could not be resolved"),
]


@pytest.mark.parametrize(("fn", "args", "kwargs", "field", "rule"), REFUSED_CALLS)
def test_bad_calls_name_the_parameter_and_the_function_c18(
    fn: Any, args: Any, kwargs: Any, field: str, rule: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        codec(fn).encode(args, kwargs)
    assert caught.value.field == field
    assert rule in caught.value.rule
    assert fn.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("fn", "text", "field"),
    [
        (nothing, '{"a": 1}', "a"),
        (one, "{}", "order"),
        (one, '{"order": {"id": "a"}, "gone": 1}', "gone"),
        (one, '{"order": {"id": null}}', "order.id"),
        (one, "[1]", "arguments"),
        (one, "not json", "arguments"),
        (every, '{"a": 1, "key": 2, "rest": 3}', "rest"),
    ],
)
def test_stored_arguments_that_do_not_fit_the_code_are_refused_c8(
    fn: Any, text: str, field: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        codec(fn).decode(text)
    assert caught.value.field == field
    assert "keep the old ones" in caught.value.remedy


def test_a_new_optional_parameter_keeps_old_runs_valid() -> None:
    def new(name: str, added: int = 7, *, flag: bool = False) -> tuple[str, int, bool]:
        return name, added, flag

    args, kwargs = codec(new).decode('{"name": "x"}')
    assert new(*args, **kwargs) == ("x", 7, False)


def test_an_oversized_argument_names_its_parameter() -> None:
    with pytest.raises(PayloadError, match="takes 1,011 bytes as JSON") as caught:
        codec(two, max_bytes=1000).encode(("x" * 1000,), {})
    assert caught.value.field == "name"
    with pytest.raises(PayloadError, match="takes 1,0") as caught:
        codec(bare, max_bytes=1000).encode(("x" * 600, "x" * 400), {})
    assert caught.value.field == "arguments"


def test_injected_parameters_are_neither_stored_nor_accepted() -> None:
    def book(connection: asyncio.AbstractEventLoop, seat: int) -> None: ...

    arguments = codec(book, injected=("connection",))
    assert arguments.encode((3,), {}) == '{"seat":3}'
    assert arguments.decode('{"seat":3}') == ((3,), {})
    with pytest.raises(PayloadError):
        arguments.encode((), {"connection": None, "seat": 3})


def test_annotations_local_to_a_function() -> None:
    class Used(BaseModel):
        x: int

    class Unused(BaseModel):
        x: int

    def closes_over(a: Used) -> type:
        return Used

    def does_not(a: Unused) -> None: ...

    assert codec(closes_over).decode('{"a":{"x":1}}') == ((Used(x=1),), {})
    assert codec(does_not, localns=locals()).decode('{"a":{"x":1}}') == ((Unused(x=1),), {})
    assert codec(does_not).decode('{"a":{"x":1}}') == (({"x": 1},), {})


def test_a_function_that_closes_over_itself_can_be_described_while_it_is_decorated() -> None:
    found: list[ArgumentsCodec] = []

    def decorate(fn: Any) -> Any:
        found.append(codec(fn))
        assert found[0].encode((1,), {}) == '{"n":1}'
        return fn

    @decorate
    def recursive(n: int) -> int:
        return int(recursive(n - 1))

    assert len(found) == 1


def test_wrapped_and_partial_functions() -> None:
    @functools.wraps(one)
    def wrapper(*args: Any) -> Any: ...

    assert codec(wrapper).decode('{"order":{"id":"a"}}') == ((Order(id="a"),), {})
    partial = functools.partial(two, "x")
    assert ArgumentsCodec(partial, name="partial").encode((3,), {}) == '{"count":3}'


def test_a_parameter_type_that_cannot_be_stored_is_named() -> None:
    def bad(ok: int, loop: asyncio.AbstractEventLoop) -> None: ...

    with pytest.raises(PayloadError, match="AbstractEventLoop cannot be stored") as caught:
        codec(bad).prepare()
    assert caught.value.field == "loop"


def gives(annotation: Any) -> Any:
    def fn() -> None: ...

    fn.__annotations__ = {"return": annotation}
    return codec(fn).result.annotation


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (None, type(None)),
        (Order, Order),
        (list[Order] | None, list[Order] | None),
        (Generator[Any, Any, Order], Order),
        (Generator[int], Any),
        (Iterator[int], Any),
        (Generator, Any),
        (Awaitable[Order], Order),
        (Coroutine[Any, Any, Order], Order),
        (Never, Any),
        ("Order", Order),
        ("Nonsense[", Any),
        ("Unknown", Any),
        (Annotated[int, ["unhashable"]], Annotated[int, ["unhashable"]]),
        (AsyncIterator[int], AsyncIterator[int]),
    ],
    ids=str,
)
def test_the_result_is_what_the_call_gives_in_the_end(annotation: Any, expected: Any) -> None:
    assert gives(annotation) == expected


def test_no_return_annotation_is_any_and_errors_name_the_function() -> None:
    result = codec(bare).result
    assert result.annotation is Any
    with pytest.raises(PayloadError) as caught:
        result.encode(Order(id="a"))
    assert caught.value.field == "result of bare"


@settings(max_examples=40)
@given(
    st.integers(),
    st.binary(),
    st.lists(st.timedeltas(), max_size=3),
    st.integers(),
    st.dictionaries(
        st.sampled_from(["a", "b", "z"]),
        st.builds(Order, id=st.text(st.characters(codec="ascii", min_codepoint=32))),
    ),
)
def test_any_call_survives(
    a: int, b: bytes, rest: list[dt.timedelta], key: int, more: dict[str, Order]
) -> None:
    if "b" in more:
        more["c"] = more.pop("b")  # `b` is a parameter of its own
    arguments = codec(every)
    text = arguments.encode((a, b, *rest), {"key": key, **more})
    assert arguments.decode(text) == ((a, b, *rest), {"key": key, **more})
