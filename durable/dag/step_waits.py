"""What a DAG's run waits for besides activities: somebody who completes a step, a signal, an operator. Each is named in `waiting_on`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from durable.authoring import wait_until
from durable.core.futures import DurableFuture
from durable.core.loop import current
from durable.payload import ValueCodec

_ANY = ValueCodec(Any, field="value")


class _Completion:
    """Never holds by itself: whoever completes the step gives the wait up."""

    kind = "step"

    def __init__(self, step: str) -> None:
        self.__qualname__ = step

    def __call__(self) -> bool:
        return False


class _Halt(_Completion):
    """Of a step that has halted: whoever resumes the run gives the wait up."""

    kind = "halt"


class Held:
    """Holds as soon as the failed steps are retried, or given up."""

    kind = "operator"

    def __init__(self, failed: Iterable[str], decided: Callable[[], bool]) -> None:
        names = list(failed)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        self.__qualname__ = f"retry of {', '.join(names[:10])}{more}"
        self._decided = decided

    def __call__(self) -> bool:
        return self._decided()


def halted(step: str) -> DurableFuture[Any]:
    """What a run waits for when a step of it has halted: nothing but somebody who resumes it."""
    return wait_until(_Halt(step))


def awaited(step: str, waits: Mapping[str, Any]) -> DurableFuture[Any]:
    """What a step declared with `Dag.wait` waits for: the signal, or nothing but its completion; TimeoutError when the time is up."""
    timeout_us = waits.get("timeout_us")
    name = waits.get("signal")
    if name is None:
        timeout = None if timeout_us is None else timedelta(microseconds=timeout_us)
        return wait_until(_Completion(step), timeout)
    run = current()
    assert run is not None
    return run.receive(name, _ANY, timeout_us)
