"""Activities in processes of their own: for work that holds the interpreter, and for work that must be stopped.

A thread cannot be killed: one that computes for ever holds its slot until the worker ends. A process can. An attempt of an activity with `process=True` takes
an idle child process, or starts one; when it is cancelled or times out, its child is killed, at once and for good, and the next attempt gets another.

Nothing is pickled. What goes to the child is a line of JSON: which activity of which module, its arguments as they are stored, and the facts about the
attempt; what comes back is a line with the result, or the failure, as they will be stored. Both go over a socket that only the two of
them hold, so the activity may print what it likes; and when the worker dies, however it does, the child sees the end of it and dies too.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from typing import Any

from durable.activity_context import ActivityContext, ActivityInfo
from durable.activity_outcomes import Cancel, Retry, Snooze
from durable.context import encoded_actor, encoded_headers
from durable.definitions import Activity
from durable.failure import decode_failure
from durable.job_errors import ProcessDied

_LONGEST_LINE = 64 * 1024 * 1024


class _Child:
    """A process that runs one activity after the other."""

    def __init__(
        self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer

    @classmethod
    async def start(cls) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "durable_worker.process_child",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        return cls(process, reader, writer)

    async def ask(self, request: Mapping[str, Any], context: ActivityContext) -> dict[str, Any]:
        """Send a request and return its answer; heartbeats on the way go to the attempt. Raises ProcessDied."""
        try:
            self.writer.write(json.dumps(request).encode() + b"\n")
            await self.writer.drain()
            while line := await self.reader.readline():
                answer: dict[str, Any] = json.loads(line)
                if "heartbeat" not in answer:
                    return answer
                context.send_heartbeat(tuple(answer["heartbeat"]))
        except ConnectionError:
            pass
        code = await self.process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
        raise ProcessDied(
            f"the process that ran {request['activity']!r} {how}; its output says more"
        )

    async def kill(self) -> None:
        self.writer.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Processes:
    """The children of one worker: as many as attempts that need one, kept for the next."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    async def run(
        self,
        activity: Activity[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: ActivityContext,
    ) -> Any:
        """Run the activity in a child and return its result. Raises what it raised; when the task is cancelled, the child is killed first."""
        request = {
            "module": activity.fn.__module__,
            "activity": activity.name,
            "input": activity.arguments.encode(args, kwargs),
            "info": _facts(context.info),
        }
        child = self._idle.pop() if self._idle else await self._start()
        try:
            answer = await child.ask(request, context)
        except BaseException:
            self._all.discard(child)
            await asyncio.shield(child.kill())
            raise
        self._idle.append(child)
        return _value(activity, answer)

    async def _start(self) -> _Child:
        child = await _Child.start()
        self._all.add(child)
        return child

    async def close(self) -> None:
        """Kill every child."""
        children, self._all, self._idle = self._all, set(), []
        await asyncio.gather(*(child.kill() for child in children))


def _facts(info: ActivityInfo) -> dict[str, Any]:
    return {
        "workflow_id": info.workflow_id,
        "run_id": None if info.run_id is None else str(info.run_id),
        "activity_id": info.activity_id,
        "name": info.name,
        "queue": info.queue,
        "attempt": info.attempt,
        "max_attempts": info.max_attempts,
        "idempotency_key": info.idempotency_key,
        "actor": encoded_actor(info.actor, ambient=False),
        "headers": encoded_headers(info.headers or None),
        "deadline": None if info.deadline is None else info.deadline.isoformat(),
        "heartbeat_details": list(info.heartbeat_details),
        "scheduled_at": info.scheduled_at.isoformat(),
        "snoozes": info.snoozes,
        "callback": info.callback,
    }


def _value(activity: Activity[..., Any], answer: Mapping[str, Any]) -> Any:
    if "result" in answer:
        return activity.arguments.result.decode(answer["result"])
    if "snooze" in answer:
        raise Snooze(answer["snooze"])
    if "cancel" in answer:
        raise Cancel(answer["cancel"])
    if "retry" in answer:
        raise Retry(answer["retry"], answer["reason"])
    raise decode_failure(answer["failure"])
