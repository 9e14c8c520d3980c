"""For the tests of explanations: each says which causes it produces, and is held to it; together they produce the whole list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from durable.core.causes import Cause, CauseCode, Explanation
from tests.waiting import eventually

PRODUCED: dict[CauseCode, str] = {}
"""The causes that tests produce, and by which test."""

Test = TypeVar("Test", bound=Callable[..., None])


def produces(*codes: CauseCode) -> Callable[[Test], Test]:
    """The test explains something that has these causes, all of them."""

    def declare(test: Test) -> Test:
        PRODUCED.update(dict.fromkeys(codes, test.__name__))
        test.__dict__["produces"] = codes
        return test

    return declare


class Witness:
    """Waits for causes, and remembers them."""

    def __init__(self) -> None:
        self.codes: set[CauseCode] = set()
        self.last: Explanation | None = None

    def sees(self, code: CauseCode, explain: Callable[[], Explanation]) -> Cause:
        """Until an explanation has this cause. Says what it said instead."""

        def found() -> Cause | None:
            self.last = explain()
            return next((it for it in self.last.causes if it.code == code), None)

        try:
            cause = eventually(found)
        except AssertionError as error:
            raise AssertionError(
                f"{code} was not told; the last explanation: {self.last}"
            ) from error
        assert cause is not None
        self.codes.add(code)
        return cause

    def status(self) -> str:
        """The operator status of what was explained last."""
        return self.explanation.status

    @property
    def explanation(self) -> Explanation:
        assert self.last is not None
        return self.last


@pytest.fixture
def witness(request: Any) -> Iterator[Witness]:
    seen = Witness()
    yield seen
    assert set(getattr(request.function, "produces", ())) <= seen.codes
