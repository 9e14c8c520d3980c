"""How an activity runs, where that is not simply in the worker's loop or a thread: in a process, or for several jobs in one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from durable.errors import InvalidOption

_DEFAULT_WAIT = timedelta(seconds=1)
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Chunk(NamedTuple):
    """Up to `size` items in one call, which waits at most `wait_s` for more."""

    size: int
    wait_s: float


def check_process(name: str, fn: Callable[..., Any], *, transactional: bool) -> None:
    """Raises InvalidOption unless another process can import and call the function."""
    if inspect.iscoroutinefunction(fn) or transactional:
        raise InvalidOption(
            f"activity {name!r}: process=True is for plain functions; an async or transactional one runs in the worker's own process"
        )
    if "<locals>" in fn.__qualname__:
        raise InvalidOption(
            f"activity {name!r}: with process=True the function is imported by another process; define it in a module, not in a function"
        )


def chunk_of(
    name: str, fn: Callable[..., Any], size: int | None, wait: timedelta | None
) -> Chunk | None:
    """The activity's chunks, if it has any. Raises InvalidOption unless its function takes a list, and nothing else."""
    if size is None:
        if wait is not None:
            raise InvalidOption(f"activity {name!r}: chunk_wait goes with chunk_size")
        return None
    wait = _DEFAULT_WAIT if wait is None else wait
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or wait < timedelta(0):
        raise InvalidOption(
            f"activity {name!r}: chunk_size is a whole number from 1, chunk_wait a timedelta from 0"
        )
    parameters = list(inspect.signature(fn).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in _BY_POSITION:
        raise InvalidOption(
            f"activity {name!r}: with chunk_size the function has one parameter, a list of items; the lists of several jobs are joined in it"
        )
    return Chunk(size, wait.total_seconds())
