"""Activities whose results and parameters fit each other, or do not."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from durable import activity


class Address(BaseModel):
    street: str
    zip: int


class Person(BaseModel):
    name: str
    age: int
    home: Address | None
    tags: list[str]


class Named(BaseModel):
    name: str


class Billed(BaseModel):
    name: str
    account: str


class Node(BaseModel):
    value: int
    below: list[Node]


@activity(name="typed.person")
def person() -> Person:
    raise NotImplementedError


@activity(name="typed.node")
def node() -> Node:
    raise NotImplementedError


@activity(name="typed.number")
def number() -> int:
    return 1


@activity(name="typed.fraction")
def fraction() -> float:
    return 1.5


@activity(name="typed.text")
def text() -> str:
    return "x"


@activity(name="typed.perhaps")
def perhaps() -> int | None:
    return None


@activity(name="typed.colour")
def colour() -> Literal["red", "green"]:
    return "red"


@activity(name="typed.yes")
def yes() -> bool:
    return True


@activity(name="typed.anything")
def anything() -> Any:
    return 1


@activity(name="typed.unsaid")
def unsaid(it, other=None):  # type: ignore[no-untyped-def]
    return it


@activity(name="typed.take_number")
def take_number(it: int) -> None:
    pass


@activity(name="typed.take_text")
def take_text(it: str) -> None:
    pass


@activity(name="typed.take_either")
def take_either(it: int | str) -> None:
    pass


@activity(name="typed.take_named")
def take_named(it: Named) -> None:
    pass


@activity(name="typed.take_billed")
def take_billed(it: Billed) -> None:
    pass


@activity(name="typed.take_numbers")
def take_numbers(it: list[int]) -> None:
    pass


@activity(name="typed.take_texts")
def take_texts(it: list[str]) -> None:
    pass


@activity(name="typed.take_table")
def take_table(it: dict[str, int]) -> None:
    pass


@activity(name="typed.take_node")
def take_node(it: Node) -> None:
    pass
