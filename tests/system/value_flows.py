"""Flows that pass values of every kind through every place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

import durable
from durable import ActivityError, Signal, activity, workflow

T = TypeVar("T")


class Grade(enum.Enum):
    GOOD = "good"


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset[str]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Crate(BaseModel, Generic[T]):
    content: T
    weight: Decimal


class Everything(BaseModel):
    grade: Grade
    at: dt.datetime
    wait: dt.timedelta
    price: Decimal
    id: uuid.UUID
    raw: bytes
    names: set[str]
    point: Point
    pet: Cat | Dog
    crate: Crate[Point]


EVERYTHING = Everything(
    grade=Grade.GOOD,
    at=dt.datetime(2027, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    wait=dt.timedelta(days=-1, microseconds=5),
    price=Decimal("1.10"),
    id=uuid.UUID(int=9),
    raw=b"\x00\xff",
    names={"b", "a"},
    point=Point(1, frozenset({"x"})),
    pet=Dog(name="Rex"),
    crate=Crate[Point](content=Point(2, frozenset()), weight=Decimal("0.5")),
)

all_kinds = Signal("values_all_kinds", Everything)


class Spoilt(Exception):
    def __init__(self, what: Everything, price: Decimal, grade: Grade) -> None:
        super().__init__("spoilt", price, grade)
        self.what = what


@activity
def same(value: Everything, at: dt.datetime, pets: list[Cat | Dog]) -> Everything:
    assert (at, pets) == (value.at, [value.pet])
    return value


@activity
def spoil(value: Everything) -> None:
    raise Spoilt(value, value.price, value.grade)


@workflow
async def passes_everything(value: Everything) -> Crate[Everything]:
    returned = await same(value, value.at, [value.pet])
    signalled = await all_kinds.receive()
    assert returned == signalled == EVERYTHING
    try:
        await spoil(value)
    except ActivityError as error:
        cause = error.cause
        assert isinstance(cause, Spoilt), cause
        assert (cause.what, cause.args) == (EVERYTHING, ("spoilt", value.price, value.grade))
        facts = (error.activity, error.activity_id, error.attempt, error.retry_state)
        assert facts == ("spoil", "spoil-1", 5, "max_attempts"), facts
    return Crate[Everything](content=returned, weight=Decimal(1))


@workflow
async def calls_with_too_many() -> str:
    call: Any = same
    try:
        await call(EVERYTHING, EVERYTHING.at, [], "one too many")
    except durable.PayloadError as error:
        return str(error)
    return "taken"


@workflow
async def swallows_its_cancel() -> None:
    while True:
        try:
            await durable.sleep(dt.timedelta(days=1))
        except BaseException:
            continue
