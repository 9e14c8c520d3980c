"""An activity needs no workflow: it is a background job as it stands: `durable-worker samples.thumbnails`.

    client.enqueue(make_thumbnail, "cat.png", 64).result(timeout=30)

And a decorator of one's own: one that heartbeats for functions which do not.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import ParamSpec, TypeVar

import durable
from durable import ActivityCancelledError, activity

P = ParamSpec("P")
T = TypeVar("T")


def heartbeating(every: timedelta) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say every so often that the function lives: a worker that is gone is noticed long before the timeout. Goes *under* `@activity`.

    The thread takes a copy of the attempt's context along: that is where `durable.heartbeat` looks.
    """

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        @wraps(fn)
        def beating(*args: P.args, **kwargs: P.kwargs) -> T:
            done = threading.Event()
            context = contextvars.copy_context()
            beats = threading.Thread(
                target=context.run, args=(_beat, done, every.total_seconds()), daemon=True
            )
            beats.start()
            try:
                return fn(*args, **kwargs)
            finally:
                done.set()

        return beating

    return decorate


def _beat(done: threading.Event, every_s: float) -> None:
    with contextlib.suppress(
        ActivityCancelledError
    ):  # the function learns it where it heartbeats itself, or never
        while not done.wait(every_s):
            durable.heartbeat("working")


finish_film = threading.Event()
"""Stands for the end of a long computation."""


@activity
def make_thumbnail(picture: str, width: int) -> str:
    return f"{picture.removesuffix('.png')}-{width}.png"


@activity(heartbeat_timeout=timedelta(seconds=2))
@heartbeating(every=timedelta(seconds=0.5))
def encode_film(film: str) -> str:
    """Runs for as long as it takes: nothing but the heartbeats limits it."""
    finish_film.wait()
    return f"{film}.mp4"
