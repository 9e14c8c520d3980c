"""The filter language of `list(where=...)`: conditions on attributes, compiled to one parameter.

    customer = "x" and (amount > 5 or urgent = true) and not tags = "test"

    condition   NAME OP VALUE    OP is = != < <= > >= or `starts with`
                NAME in (VALUE, VALUE, ...)
                exists NAME
    VALUE       "text" or 'text', a number, true, false
    combine     and, or, not, ( )

Conditions compare values of one kind: a number is never equal to, less or greater than a text, and a comparison with an attribute that a run does not
have is false (so is `!=`; write `not customer = "x"` to include those without). An attribute that is a list meets a condition if one of its
members does. A datetime is written as its UTC text, `due < "2027-01-01T"`.

A filter is compiled to a jsonpath predicate, which is sent as a parameter: nothing of it is ever part of a statement. Equalities are found along the
index on attributes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from durable.errors import InvalidOption

MAX_FILTER = 4096
_DEEPEST = 50

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<word>[A-Za-z_][\w.\-]*)
    | (?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_SIGNS = {"=": "==", "==": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "starts", "with", "true", "false"})


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def compiled_filter(where: str) -> str:
    """The filter as jsonpath. Raises InvalidOption that shows where it cannot be read."""
    if not isinstance(where, str) or not where.strip() or len(where) > MAX_FILTER or "\0" in where:
        raise InvalidOption(
            f"where is {str(where)[:60]!r}; give a condition such as 'customer = \"x\" and amount > 5',"
            f" of at most {MAX_FILTER} characters"
        )
    parser = _Parser(where)
    path = parser.either(0)
    if parser.token.kind != "end":
        parser.refuse("`and`, `or` or the end")
    return path


class _Parser:
    """Recursive descent; `token` is the next one."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._tokens = self._read()
        self.token = next(self._tokens)

    def _read(self) -> Iterator[_Token]:
        at = 0
        while self._where[at:].strip():
            match = _TOKEN.match(self._where, at)
            if match is None:
                self.token = _Token(
                    "", "", at + len(self._where[at:]) - len(self._where[at:].lstrip())
                )
                self.refuse("a name, a value or an operator")
            kind = str(match.lastgroup)
            yield _Token(kind, match.group(kind), match.start(kind))
            at = match.end()
        while True:
            yield _Token("end", "", len(self._where))

    def either(self, depth: int) -> str:
        return self._joined("or", "||", self._both, depth)

    def _both(self, depth: int) -> str:
        return self._joined("and", "&&", self._one, depth)

    def _joined(self, word: str, sign: str, member: Callable[[int], str], depth: int) -> str:
        members = [member(depth)]
        while self._takes(word):
            members.append(member(depth))
        return members[0] if len(members) == 1 else "(" + f" {sign} ".join(members) + ")"

    def _one(self, depth: int) -> str:
        if depth > _DEEPEST:
            self.refuse("fewer levels")
        if self._takes("not"):
            return f"!({self._one(depth + 1)})"
        if self._takes("("):
            inner = self.either(depth + 1)
            self._need(")")
            return inner
        if self._takes("exists"):
            return f"exists({self._name()})"
        return self._condition()

    def _condition(self) -> str:
        name = self._name()
        if self._takes("in"):
            self._need("(")
            values = [self._value()]
            while self._takes(","):
                values.append(self._value())
            self._need(")")
            return "(" + " || ".join(f"{name} == {value}" for value in values) + ")"
        if self._takes("starts"):
            self._need("with")
            if self.token.kind != "text":
                self.refuse("a text")
            return f"{name} starts with {self._value()}"
        sign = _SIGNS.get(self.token.text) if self.token.kind == "sign" else None
        if sign is None:
            self.refuse("an operator: = != < <= > >=, `in (...)` or `starts with`")
        self._next()
        return f"{name} {sign} {self._value()}"

    def _name(self) -> str:
        if self.token.kind != "word" or self.token.text.lower() in _KEYWORDS:
            self.refuse("the name of an attribute")
        return "$." + json.dumps(self._next().text)

    def _value(self) -> str:
        token = self.token
        if token.kind == "number":
            return self._next().text
        if token.kind == "word" and token.text.lower() in ("true", "false"):
            return self._next().text.lower()
        if token.kind != "text":
            self.refuse("a value: a text in quotes, a number, true or false")
        return json.dumps(re.sub(r"\\(.)", r"\1", self._next().text[1:-1], flags=re.DOTALL))

    def _takes(self, text: str) -> bool:
        if self.token.kind in ("word", "sign") and self.token.text.lower() == text:
            self._next()
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._takes(text):
            self.refuse(f"`{text}`")

    def _next(self) -> _Token:
        token, self.token = self.token, next(self._tokens)
        return token

    def refuse(self, expected: str) -> NoReturn:
        at = self.token.at
        raise InvalidOption(
            f"where cannot be read at character {at + 1}: expected {expected}\n  {self._where}\n  {' ' * at}^"
        )
