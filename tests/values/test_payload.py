from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import json
import os
import pathlib
import subprocess
import sys
import uuid
from collections import deque
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypeVar

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from durable.errors import PayloadError
from durable.payload import ValueCodec, digest, value_codec

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Word(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    tags: frozenset[str] = frozenset()
    raw: bytes = b""


class Basket(TypedDict):
    count: int
    tags: NotRequired[set[str]]


@dataclasses.dataclass
class Box:
    price: Decimal
    inner: Optional[Box] = None  # noqa: UP045


@dataclasses.dataclass(eq=False, slots=True)
class Slotted:
    size: int


class Line(BaseModel):
    sku: str
    qty: int = 1
    price: float = 1.0


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    at: dt.datetime
    wait: dt.timedelta
    id: uuid.UUID
    raw: bytes
    colour: Colour
    amounts: tuple[Decimal, ...]
    names: frozenset[str]


class Order(BaseModel):
    lines: list[Line]
    strict: Strict | None = None
    note: Any = None
    points: dict[str, Point] = {}


class Aliased(BaseModel):
    a: int = Field(alias="alpha")
    b: int = Field(validation_alias="in_b", serialization_alias="out_b")


class Tree(BaseModel):
    children: list[Tree] = []
    value: int | str = 0


class Wrapped(BaseModel, Generic[T]):
    value: T


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Hidden(BaseModel):
    secret: int = Field(1, exclude=True)


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class HexBytes(BaseModel):
    model_config = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")
    raw: bytes


class Sloppy(BaseModel):
    note: str = None  # type: ignore[assignment]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


def strict() -> Strict:
    return Strict(
        at=dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
        wait=dt.timedelta(days=-1, microseconds=1),
        id=uuid.UUID(int=7),
        raw=b"\xff\x00",
        colour=Colour.BLUE,
        amounts=(Decimal("1.10"), Decimal("-0")),
        names=frozenset({"b", "a"}),
    )


def refused(annotation: Any, value: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        ValueCodec(annotation).encode(value)
    return caught.value


ALIASED = Aliased.model_validate({"alpha": 1, "in_b": 2})
ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, None),
    (Any, None),
    (Any, {"a": [1, 2.5, "x", True, None, {}]}),
    (object, [1]),
    (int, 2**70),
    (float, 5),
    (float, 1e300),
    (float, -0.0),
    (str, 'NaN Infinity \\u0000 \\ " é 🦊'),
    (bytes, b"\xff\xfe\x00"),
    (bytes, b"plain"),
    (bytes | None, b"\x80"),
    (Decimal, Decimal("1.000")),
    (complex, 1 + 2j),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))),
    (dt.datetime, dt.datetime(1, 1, 1)),  # noqa: DTZ001
    (dt.date, dt.date(9999, 12, 31)),
    (dt.time, dt.time(1, 2, 3, 4)),
    (dt.timedelta, dt.timedelta(days=-3, microseconds=1)),
    (uuid.UUID, uuid.UUID(int=1)),
    (Colour, Colour.BLUE),
    (Word, Word.RED),
    (Literal["a", 1], 1),
    (set[int], {3, 1, 2}),
    (frozenset[tuple[int, str]], frozenset({(1, "b"), (1, "a")})),
    (set, {"a", 1}),
    (tuple[int, str, bytes], (1, "a", b"\xff")),
    (deque[int], deque([1, 2])),
    (dict[int, str], {1: "a"}),
    (dict[Colour, set[str]], {Colour.RED: {"x"}}),
    (dict[uuid.UUID, dt.timedelta], {uuid.UUID(int=1): dt.timedelta(1)}),
    (pathlib.Path, pathlib.Path("/a/b")),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1")),
    (Point, Point(1, frozenset({"b", "a"}), b"\xff")),
    (dict[str, Point], {"a": Point(1)}),
    (Basket, {"count": 1, "tags": {"b", "a"}}),
    (Box, Box(Decimal("1.5"), Box(Decimal(2)))),
    (Strict, strict()),
    (Order, Order(lines=[Line(sku="a")], strict=strict(), note={"k": [1]}, points={"p": Point(2)})),
    (Aliased, ALIASED),
    (list[Aliased], [ALIASED]),
    (Tree, Tree(children=[Tree(value="1"), Tree(value=1)])),
    (Wrapped[Box], Wrapped[Box](value=Box(Decimal(1)))),
    (Open, Open.model_validate({"any": ["thing"]})),
    (Hidden, Hidden.model_validate({})),
    (Area, Area(side=3)),
    (HexBytes, HexBytes(raw=b"\xff")),
    (JsonValue, {"a": [1, None, 2.5]}),
    (int | float, 1.0),
    (int | float, 1),
    (int | str, "1"),
    (bool | int, True),
    (dt.datetime | str, "not a date"),
    (dt.datetime | str, dt.datetime(2026, 1, 1)),  # noqa: DTZ001
    (Line | Box, Box(Decimal(1))),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog()),
    (Annotated[int, Field(gt=3)], 4),
    (list[Annotated[str, Field(max_length=3)]], ["abc"]),
]


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=str)
def test_what_goes_in_comes_out(annotation: Any, value: Any) -> None:
    codec = value_codec(annotation)
    text = codec.encode(value)
    json.loads(text, parse_constant=pytest.fail)
    back = codec.decode(text)
    assert back == value
    if annotation is not float:
        assert type(back) is type(value)
    assert codec.encode(back) == text


def test_a_value_is_validated_before_it_is_written() -> None:
    assert value_codec(Line).encode({"sku": "a", "qty": "2"}) == '{"sku":"a","qty":2,"price":1.0}'
    assert value_codec(float).encode(5) == "5.0"


def test_an_alias_is_accepted_in_stored_text() -> None:
    assert value_codec(Aliased).decode('{"alpha": 1, "in_b": 2}') == ALIASED


def test_objects_without_equality_survive() -> None:
    assert (
        value_codec(Slotted | None).decode(value_codec(Slotted | None).encode(Slotted(3))).size == 3
    )


NAN, INF, LONE = float("nan"), float("inf"), "a\ud800"
REFUSED: list[tuple[Any, Any, str, str]] = [
    (float, NAN, "value", "nan is not a JSON number"),
    (float, -INF, "value", "-inf is not a JSON number"),
    (Any, {"a": [1, NAN]}, "value.a.1", "nan is not"),
    (Order, Order(lines=[Line(sku="a"), Line(sku="b", price=INF)]), "value.lines.1.price", "inf is not"),
    (dict[str, list[float]], {"NaN": [NAN]}, "value.NaN.0", "nan is not"),
    (Decimal, Decimal("NaN"), "value", "finite number"),
    (str, "a\0b", "value", "NUL"),
    (str, "\\\0", "value", "NUL"),
    (dict[str, int], {"a\0": 1}, "value.'a\\x00'", "NUL"),
    (Order, Order(lines=[Line(sku="a\0")]), "value.lines.0.sku", "NUL"),
    (str, LONE, "value", "surrogate"),
    (Any, [LONE], "value", "surrogate"),
    (Any, {LONE: 1}, "value", "surrogate"),
    (dict, {LONE: 1}, "value", "surrogate"),
    (Line, Line.model_construct(sku=LONE), "value", "surrogate"),
    (dict[str, int], {LONE: 1}, "value.a\ufffd\ufffd\ufffd.[key]", "unicode string"),
    (Any, {1: "a"}, "value", "dict key 1 is not a str"),
    (dict, {1: "a"}, "value", "dict key 1 is not a str"),
    (Any, {1, 2}, "value", "builtins.set"),
    (Any, Line(sku="a"), "value", "Line has no annotation"),
    (Any, [dt.date(2026, 1, 1)], "value", "datetime.date"),
    (Any, b"x", "value", "builtins.bytes"),
    (Any, Word.RED, "value", "Word has no annotation"),
    (object, Decimal(1), "value", "decimal.Decimal"),
    (set, {(1, frozenset())}, "value", "builtins.frozenset"),
    (Open, Open.model_validate({"x": {1}}), "value", "builtins.set"),
    (list[Any] | int, [{1}], "value.0", "would not come back"),
    (int, "a", "value", "valid integer"),
    (int, 1.5, "value", "valid integer"),
    (None, 1, "value", "None"),
    (Order, {"lines": [{"sku": "a", "qty": "x"}]}, "value.lines.0.qty", "valid integer"),
    (Order, {}, "value.lines", "it is missing"),
    (Area, {"side": 1, "x": 2}, "value.x", "no parameter or field"),
    (dt.datetime | str, "2026-01-01T00:00:00", "value", "would not come back"),
    (list[dt.date] | list[str], ["2026-01-01"], "value.0", "would not come back"),
    (bytes | str, "abcd", "value", "would not come back"),
    (set[int] | list[int], {1}, "value", "would not come back"),
    (Word | str, Word.RED, "value", "would not come back"),
    (pydantic.SecretStr, pydantic.SecretStr("x"), "value", "would not come back"),
    (Hidden, Hidden.model_validate({"secret": 2}), "value.secret", "would not come back"),
    (Sloppy, Sloppy(), "value.note", "valid string"),
    (Sloppy, {}, "value.note", "valid string"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "field", "rule"), REFUSED)
def test_bad_values_are_refused_by_field_rule_and_remedy_c18(
    annotation: Any, value: Any, field: str, rule: str
) -> None:
    error = refused(annotation, value)
    assert error.field == field
    assert rule in error.rule
    assert len(error.remedy) > 10
    str(error).encode()  # the message itself can be stored
    assert "\0" not in str(error)


def test_a_model_changed_after_it_was_made_is_validated_again() -> None:
    line = Line(sku="a")
    line.qty = "many"  # type: ignore[assignment]
    assert refused(list[Line], [line]).field == "value.0.qty"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_bounded_by_what_can_be_read_back() -> None:
    codec = value_codec(Any)
    assert codec.decode(codec.encode(nested(180))) == nested(180)
    assert "nested too deeply" in refused(Any, nested(250)).rule
    tree = Tree()
    for _ in range(120):
        tree = Tree(children=[tree])
    assert refused(Tree, tree).field == "value"


def test_many_brackets_that_are_not_deep_are_fine() -> None:
    codec = value_codec(list[list[int]])
    value = [[n] for n in range(1000)]
    assert codec.decode(codec.encode(value)) == value


def test_an_integer_too_long_for_the_parser_is_refused() -> None:
    assert "cannot be read back" in refused(int, 10**5000).rule


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    annotations: tuple[Any, ...] = (Any, list, list[Any])
    for annotation in annotations:
        assert refused(annotation, loop).field == "value"


def test_size_is_counted_in_bytes_of_the_text() -> None:
    codec = ValueCodec(str, max_bytes=1000)
    assert len(codec.encode("é" * 499)) == 501
    with pytest.raises(PayloadError, match="takes 1,002 bytes as JSON, the limit is 1,000"):
        codec.encode("é" * 500)


@pytest.mark.parametrize(
    "text", ["", "nope", "[1", '{"sku": 1}', '{"a":1}', "null", '{"sku":"\ud800"}']
)
def test_text_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        value_codec(Line).decode(text)
    assert caught.value.field.startswith("value")
    assert "keep the old ones" in caught.value.remedy


def test_a_type_that_pydantic_does_not_know_is_named() -> None:
    class Socket:
        pass

    with pytest.raises(PayloadError, match="Socket cannot be stored as JSON"):
        ValueCodec(Socket).prepare()


def test_codecs_are_shared_by_annotation_but_not_over_the_order_of_a_union() -> None:
    assert value_codec(list[Line]) is value_codec(list[Line])
    assert value_codec(int | str) is not value_codec(str | int)


def test_an_unhashable_annotation_works() -> None:
    annotation = Annotated[int, ["unhashable"]]
    assert value_codec(annotation).decode(value_codec(annotation).encode(1)) == 1


def test_digest_is_short_and_stable() -> None:
    assert digest('{"a":1}') == "1f8c00645b7df6ce"
    assert digest('{"a":1}') != digest('{"a":2}')


SETS = """
import sys, pydantic
sys.path[:0] = ["."]
from typing import Any, NamedTuple
from durable.payload import value_codec
class N(NamedTuple):
    names: set[str]
class M(pydantic.BaseModel):
    names: frozenset[str]
    nested: set[frozenset[str]]
    point: N
words = {f"w{n}" for n in range(20)}
print(value_codec(M).encode(M(names=words, nested={frozenset(words), frozenset("abc")}, point=N(words))))
print(value_codec(set).encode(words))
"""


def test_sets_are_written_in_the_same_order_under_any_hash_seed_c13() -> None:
    def run(seed: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.Popen([sys.executable, "-c", SETS], env=env, stdout=subprocess.PIPE)

    outputs = [process.communicate()[0] for process in [run("1"), run("2")]]
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"w19") == 4


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(json_values)
def test_any_json_value_survives_or_has_a_nul(value: Any) -> None:
    codec = value_codec(Any)
    if "\\u0000" in json.dumps(value).replace("\\\\", ""):
        assert "NUL" in refused(Any, value).rule
    else:
        assert repr(codec.decode(codec.encode(value))) == repr(value)


typed: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bytes, st.binary()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (dt.datetime, st.datetimes(timezones=st.none() | st.just(dt.UTC))),
    (dt.timedelta, st.timedeltas()),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (set[int | None], st.sets(st.none() | st.integers())),
    (frozenset[bytes], st.frozensets(st.binary())),
    (
        dict[int, tuple[bool, Colour]],
        st.dictionaries(st.integers(), st.tuples(st.booleans(), st.sampled_from(Colour))),
    ),
]


@pytest.mark.parametrize(("annotation", "values"), typed, ids=lambda v: str(v)[:30])
@settings(max_examples=40)
@given(data=st.data())
def test_typed_values_survive(
    annotation: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value = data.draw(values)
    codec = value_codec(annotation)
    text = codec.encode(value)
    back = codec.decode(text)
    assert repr(back) == repr(value) or back == value
    assert codec.encode(back) == text
