from __future__ import annotations

import asyncio
import copy
import dataclasses
import datetime as dt
import enum
import json
import subprocess
import sys
import uuid
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable.errors import RemoteError
from durable.failure import (
    MAX_DEPTH,
    MAX_EXCEPTIONS,
    MAX_TEXT,
    REMOTE_HEADING,
    decode_failure,
    encode_failure,
    failure_type_names,
    leaves,
)


class Composed(ValueError):
    """Composes its message: calling it with its own args would compose twice."""

    def __init__(self, order_id: str, *, amount: int) -> None:
        super().__init__(f"order {order_id} failed")
        self.order_id = order_id
        self.amount = amount


@dataclasses.dataclass
class Declined(Exception):
    order_id: str
    cents: int


class Missing(OSError):
    def __init__(self, name: str) -> None:
        super().__init__(2, "no such thing", name)


class NeedsState(Exception):
    def __init__(self, handle: object) -> None:
        super().__init__()
        self.handle = handle

    def __str__(self) -> str:
        return f"about {self.handle}"


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Group(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> Any:
        return Group(self.message, excs)


def carried(exc: BaseException) -> BaseException:
    return decode_failure(json.loads(json.dumps(encode_failure(exc), allow_nan=False)))


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("a"),
        ValueError(),
        KeyError("a"),
        TimeoutError(),
        TimeoutError("late"),
        asyncio.CancelledError("why"),
        OSError(2, "gone"),
        FileNotFoundError(2, "gone", "/nope"),
        ZeroDivisionError("x", 3, None, [1]),
        Composed("o-1", amount=3),
        Declined("o-1", 3),
        Missing("thing"),
        json.JSONDecodeError("msg", "doc", 1),
        subprocess.CalledProcessError(3, ["ls"], "out"),
        ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [KeyError("b")])]),
        BaseExceptionGroup("g", [asyncio.CancelledError()]),
        Group("g", [Composed("o-2", amount=4)]),
    ],
    ids=repr,
)
def test_round_trip_keeps_class_text_args_and_attributes_c7(exc: BaseException) -> None:
    twin = carried(exc)
    assert type(twin) is type(exc)
    assert str(twin) == str(exc)
    assert repr(twin) == repr(exc)
    assert vars(twin) == vars(exc)
    assert repr(carried(twin)) == repr(exc)


def test_os_errors_keep_errno_and_file_name() -> None:
    twin = carried(raised(FileNotFoundError(2, "gone", "/nope")))
    assert isinstance(twin, FileNotFoundError)
    assert (twin.errno, twin.strerror, twin.filename) == (2, "gone", "/nope")


def chained_failure() -> BaseException:
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise OSError(5, "second")  # noqa: B904
        except OSError as error:
            raise Composed("o-1", amount=1) from error
    except Composed as error:
        error.add_note("look here")
        return error


def test_cause_context_notes_and_tracebacks_survive_c7() -> None:
    twin = carried(chained_failure())
    assert isinstance(twin.__cause__, OSError)
    assert isinstance(twin.__cause__.__context__, KeyError)
    assert twin.__notes__[0] == "look here"
    assert "in chained_failure" in twin.remote_traceback  # type: ignore[attr-defined]
    assert REMOTE_HEADING + twin.remote_traceback in twin.__notes__  # type: ignore[attr-defined]


def test_a_suppressed_context_stays_away() -> None:
    error = ValueError("shown")
    error.__context__ = KeyError("hidden")
    assert "context" in encode_failure(error)
    error.__suppress_context__ = True
    assert "context" not in encode_failure(error)


def test_a_second_hop_appends_to_the_traceback_and_repeats_no_note() -> None:
    twin = carried(raised(carried(chained_failure())))
    assert "in chained_failure" in twin.remote_traceback  # type: ignore[attr-defined]
    assert "in raised" in twin.remote_traceback  # type: ignore[attr-defined]
    assert len([note for note in twin.__notes__ if note.startswith(REMOTE_HEADING)]) == 1
    assert twin.__notes__.count("look here") == 1


@pytest.mark.parametrize(
    "exc",
    [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), StopIteration(1), StopAsyncIteration()],
    ids=repr,
)
def test_what_would_break_the_worker_is_not_rebuilt(exc: BaseException) -> None:
    twin = carried(exc)
    assert type(twin) is RemoteError
    assert twin.type_name == f"builtins:{type(exc).__name__}"


@pytest.mark.parametrize(
    "name",
    [
        "gone.module:Error",
        "builtins:print",
        "builtins:int",
        "os:path.join",
        "builtins:NoSuch",
        "",
        "x",
        "a:b:c",
        ":",
    ],
)
def test_a_class_that_is_not_an_imported_exception_becomes_a_remote_error(name: str) -> None:
    twin = decode_failure({"type": name, "message": "m", "args": ["m"]})
    assert type(twin) is RemoteError
    assert (twin.type_name, twin.message) == (name, "m")


def test_decoding_imports_nothing() -> None:
    assert "this" not in sys.modules
    decode_failure({"type": "this:Error", "message": ""})
    assert "this" not in sys.modules


def test_a_local_class_becomes_a_remote_error_and_still_counts_by_name() -> None:
    class Local(Exception):
        pass

    twin = carried(Local("m"))
    assert type(twin) is RemoteError
    assert "Local" in failure_type_names(twin)


def test_an_unknown_group_keeps_its_members() -> None:
    class LocalGroup(ExceptionGroup[Exception]):
        pass

    twin = carried(LocalGroup("g", [ValueError("a")]))
    assert isinstance(twin, ExceptionGroup)
    assert repr(twin.exceptions) == "(ValueError('a'),)"


def test_a_class_that_cannot_print_itself_becomes_a_remote_error() -> None:
    body = encode_failure(NeedsState(object()))
    assert body["omitted"] == ["handle"]
    assert type(decode_failure(body)) is RemoteError


def test_what_is_not_json_is_left_out_by_name() -> None:
    exc = Composed("o-1", amount=1)
    exc.price = Decimal(3)  # type: ignore[attr-defined]
    exc.keys = {1: "a"}  # type: ignore[attr-defined]
    exc.nan = float("nan")  # type: ignore[attr-defined]
    exc.nul = "a\0"  # type: ignore[attr-defined]
    exc.lone = ["\ud800"]  # type: ignore[attr-defined]
    exc.big = "x" * 10**6  # type: ignore[attr-defined]
    exc.posing = {"durable:value": "decimal", "of": "1"}  # type: ignore[attr-defined]
    body = encode_failure(exc)
    assert body["omitted"] == ["keys", "nan", "nul", "lone", "big", "posing"]
    assert body["state"].keys() == {"order_id", "amount", "price"}


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert encode_failure(ValueError("\\u0000"))["args"] == ["\\u0000"]
    assert "args" not in encode_failure(ValueError("\\\0"))


def test_a_message_whose_args_were_left_out_is_a_note() -> None:
    twin = carried(UnicodeDecodeError("utf8", b"\xff" * 10_000, 0, 1, "bad byte"))
    assert isinstance(twin, UnicodeDecodeError)
    assert "bad byte" in twin.__notes__[0]


class Size(enum.Enum):
    SMALL = "s"


@dataclasses.dataclass(frozen=True)
class Spot:
    x: int
    price: Decimal


class Basket(pydantic.BaseModel):
    spots: list[Spot]
    sizes: frozenset[Size]


DETAILS: list[Any] = [
    Decimal("1.10"), uuid.UUID(int=7), dt.timedelta(days=-1, microseconds=3), b"\xff\x00",
    dt.datetime(2027, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), dt.date(2027, 1, 2), dt.time(3, 4),
    {1, 2}, frozenset({"a", "b"}), Size.SMALL, Spot(1, Decimal("2.50")),
    Basket(spots=[Spot(1, Decimal(2))], sizes=frozenset({Size.SMALL})),
    {"nested": [Size.SMALL, {"deeper": Decimal(3)}]},
]  # fmt: skip


@pytest.mark.parametrize("detail", DETAILS, ids=lambda it: type(it).__name__)
def test_details_of_common_types_come_back_as_they_are(detail: Any) -> None:
    exc = LookupError("text", detail)
    exc.detail = detail  # type: ignore[attr-defined]
    twin = carried(exc)
    assert type(twin) is LookupError
    assert twin.args == ("text", detail)
    assert twin.detail == detail  # type: ignore[attr-defined]
    assert type(twin.detail) is type(detail)  # type: ignore[attr-defined]


def test_details_whose_type_is_gone_or_not_imported_stay_json() -> None:
    body = encode_failure(LookupError(Spot(1, Decimal(2))))
    body["args"][0]["durable:value"] = "os:system"
    assert decode_failure(body).args[0]["of"] == {"x": 1, "price": "2"}
    body["args"][0]["durable:value"] = "never.imported:Spot"
    assert decode_failure(body).args[0]["durable:value"] == "never.imported:Spot"


def test_a_unicode_error_keeps_its_bytes() -> None:
    twin = carried(UnicodeDecodeError("utf8", b"\xff", 0, 1, "bad byte"))
    assert isinstance(twin, UnicodeDecodeError)
    assert (twin.object, twin.reason) == (b"\xff", "bad byte")


def test_a_pydantic_error_keeps_its_text() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    assert "valid integer" in str(carried(caught.value))


def test_hostile_str_does_not_stop_the_encoding() -> None:
    assert encode_failure(Hostile())["message"] == "[its __str__ raised RuntimeError]"


def test_cycles_end_in_a_mark() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    twin = carried(one)
    assert "cycle" in str(twin.__cause__.__cause__)  # type: ignore[union-attr]


def test_a_shared_cause_is_no_cycle() -> None:
    shared = KeyError("shared")
    one, two = ValueError("one"), ValueError("two")
    one.__cause__ = two.__cause__ = shared
    twin = carried(ExceptionGroup("g", [one, two]))
    assert isinstance(twin, ExceptionGroup)
    assert [repr(member.__cause__) for member in twin.exceptions] == ["KeyError('shared')"] * 2


def chain_of(length: int) -> BaseException:
    exc = ValueError("0")
    for number in range(1, length):
        above = ValueError(str(number))
        above.__cause__ = exc
        exc = above
    return exc


def test_a_deep_chain_is_cut_visibly() -> None:
    text = json.dumps(encode_failure(chain_of(5000)))
    assert text.count('"type"') == MAX_DEPTH + 1
    assert "the rest was cut" in text


def test_a_wide_group_is_cut_visibly() -> None:
    body = encode_failure(ExceptionGroup("g", [ValueError(str(n)) for n in range(1000)]))
    assert len(body["group"]) == MAX_EXCEPTIONS + 1
    assert "936 more members were cut" in body["group"][-1]["message"]


def test_size_is_bounded_and_says_so() -> None:
    members = [ValueError("x" * 100_000) for _ in range(200)]
    for member in members:
        member.add_note("y" * 100_000)
        member.extra = "z" * 8000  # type: ignore[attr-defined]
    text = json.dumps(encode_failure(ExceptionGroup("g" * 100_000, members)))
    assert len(text) < 2 * MAX_TEXT
    assert "characters cut]" in text


def test_text_is_cleaned_for_postgres() -> None:
    exc = ValueError("a\0b\ud800c")
    exc.add_note("n\0")
    body = encode_failure(exc)
    assert body["message"] == "a\ufffdb\ufffdc"
    assert body["notes"] == ["n\ufffd"]
    assert "\\u0000" not in json.dumps(body)


def test_type_names_are_those_of_the_whole_family() -> None:
    names = failure_type_names(Composed("o", amount=1))
    assert names[:3] == [f"{__name__}:Composed", f"{__name__}.Composed", "Composed"]
    assert {"builtins:ValueError", "ValueError", "builtins.Exception"} < set(names)
    assert "object" not in names


def test_leaves_flatten_groups_in_order_c7() -> None:
    group = ExceptionGroup(
        "g", [ValueError("1"), ExceptionGroup("h", [ValueError("2")]), ValueError("3")]
    )
    assert [str(leaf) for leaf in leaves(group)] == ["1", "2", "3"]
    single = ValueError("a")
    assert list(leaves(single)) == [single]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50)
@given(st.lists(json_values, max_size=3), st.dictionaries(st.text(), json_values, max_size=3))
def test_any_exception_can_be_stored_and_rebuilt(
    args: list[Any], attributes: dict[str, Any]
) -> None:
    exc = ValueError(*copy.deepcopy(args))
    vars(exc).update(attributes)
    body = encode_failure(exc)
    assert "\\u0000" not in json.dumps(body).replace("\\\\", "")
    twin = carried(exc)
    assert type(twin) is ValueError
    if "omitted" not in body:
        assert list(twin.args) == args
