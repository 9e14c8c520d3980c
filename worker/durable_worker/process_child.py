"""The child's side of processes.py: `python -m durable_worker.process_child FD` runs activities that come over the socket FD, one by one."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Any
from uuid import UUID

from durable import activity_context
from durable.activity_context import ActivityContext, ActivityInfo
from durable.activity_outcomes import ActivityOutcome, Cancel, Retry, Snooze
from durable.context import rebuilt, rebuilt_headers
from durable.definitions import Activity, registered_activities
from durable.errors import UnknownActivity
from durable.failure import encode_failure
from durable.payload import value_codec

Send = Callable[[Mapping[str, Any]], None]
_details = value_codec(Any)


def main(descriptor: int) -> None:
    """Answer requests until the worker is gone. Its signals are its own business: it ends us when it wants to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(link, requests), daemon=True).start()
    lock = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        with lock:
            link.sendall(json.dumps(message).encode() + b"\n")

    while True:
        send(_answered(json.loads(requests.get()), send))


def _listen(link: socket.socket, requests: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on; the end of them is the end of the worker, and so of this process, whatever it is doing."""
    with contextlib.suppress(OSError), link.makefile("rb") as lines:
        for line in lines:
            requests.put(line)
    os._exit(1)


def _answered(request: Mapping[str, Any], send: Send) -> dict[str, Any]:
    try:
        return {"result": _run(request, send)}
    except Snooze as snooze:
        return {"snooze": snooze.delay_s}
    except Cancel as cancel:
        return {"cancel": cancel.reason}
    except Retry as retry:
        return {"retry": retry.delay_s, "reason": retry.reason}
    except BaseException as error:
        return {"failure": encode_failure(error)}


def _run(request: Mapping[str, Any], send: Send) -> str:
    activity = _found(request["module"], request["activity"])
    info = _info(request["info"])
    context = ActivityContext(
        lambda: info,
        lambda details: send({"heartbeat": json.loads(_details.encode(list(details)))}),
        lambda: False,
        False,
    )
    token = activity_context.enter(context)
    try:
        args, kwargs = activity.arguments.decode(request["input"])
        value = activity.fn(*args, **kwargs)
        if isinstance(value, ActivityOutcome):
            raise value
        return activity.arguments.result.encode(value)
    finally:
        activity_context.leave(token)


def _found(module: str, name: str) -> Activity[..., Any]:
    import_module(module)
    for activity in registered_activities(module):
        if activity.name == name:
            return activity
    raise UnknownActivity(f"module {module!r} has no activity {name!r} once it is imported afresh")


def _info(facts: Mapping[str, Any]) -> ActivityInfo:
    given = dict(facts)
    deadline, run_id = given["deadline"], given["run_id"]
    actor, headers = given["actor"], given["headers"]
    given["deadline"] = None if deadline is None else datetime.fromisoformat(deadline)
    given["run_id"] = None if run_id is None else UUID(run_id)
    given["actor"] = None if actor is None else rebuilt(json.loads(actor))
    given["headers"] = rebuilt_headers(None if headers is None else json.loads(headers))
    given["heartbeat_details"] = tuple(given["heartbeat_details"])
    given["scheduled_at"] = datetime.fromisoformat(given["scheduled_at"])
    return ActivityInfo(**given)


if __name__ == "__main__":
    main(int(sys.argv[1]))
