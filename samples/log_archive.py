"""A batch: prepare, do the same to many, some at once, and clean up whatever happens: `durable-worker samples.log_archive`.

The logs of a folder are packed in a room of their own and moved to the archive when all are there: all of them or none. `finally` clears the
room after success, failure and cancellation alike; a worker that dies in the middle leaves that to the one that takes over.
(What the steps share is a folder: give them the queue of one host, as in samples/host_files.py, where workers run on several.)
"""

from __future__ import annotations

import asyncio
import gzip
import shutil
from pathlib import Path

from pydantic import BaseModel

import durable
from durable import NonRetryable, activity, workflow

AT_ONCE = 4


class Packed(BaseModel):
    name: str
    size: int
    packed_size: int


class NotText(NonRetryable):
    """A log that cannot be read stays where it is, and so do the others."""


@activity
def make_room(folder: str) -> str:
    """The same room at every attempt: it is named after the run."""
    room = Path(folder) / f".packing-{durable.activity_info().workflow_id}"
    room.mkdir(exist_ok=True)
    return str(room)


@activity
def list_logs(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).glob("*.log"))


@activity
def pack_log(folder: str, room: str, name: str) -> Packed:
    """Writing it again at a second attempt does no harm."""
    data = (Path(folder) / name).read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise NotText(f"{name} is no log: {error.reason} at byte {error.start}") from error
    packed = Path(room) / f"{name}.gz"
    packed.write_bytes(gzip.compress(data, mtime=0))
    return Packed(name=name, size=len(data), packed_size=packed.stat().st_size)


@activity
def move_to_archive(folder: str, room: str, names: list[str]) -> None:
    archive = Path(folder) / "archive"
    archive.mkdir(exist_ok=True)
    for name in names:
        packed = Path(room) / f"{name}.gz"
        if packed.exists():  # a former attempt may have moved it
            packed.replace(archive / packed.name)
        (Path(folder) / name).unlink(missing_ok=True)


@activity
def clear_room(room: str) -> None:
    shutil.rmtree(room, ignore_errors=True)


@workflow
async def archive_logs(folder: str) -> list[Packed]:
    room = await make_room(folder)
    try:
        names = await list_logs(folder)
        slots = asyncio.Semaphore(AT_ONCE)

        async def pack(name: str) -> Packed:
            async with slots:
                return await pack_log(folder, room, name)

        async with asyncio.TaskGroup() as group:
            packing = [group.create_task(pack(name)) for name in names]
        await move_to_archive(folder, room, names)
    finally:
        await clear_room(room)
    return [task.result() for task in packing]
