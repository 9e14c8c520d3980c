"""Steps that must run where the file is: one queue for each host: `durable-worker samples.host_files --queue default=10 --queue host-$(hostname)=5`.

The first step runs anywhere, and answers with the queue of the host that it ran on. The others are sent to that queue. If the host is
gone, `schedule_to_start` says so, and the workflow begins again on another one.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from durable import ActivityError, RetryPolicy, activity, workflow


class Fetched(BaseModel):
    path: str
    queue: str


@activity
def fetch_file(name: str) -> Fetched:
    """Where a real one downloads. `HOST_QUEUE` is the queue that only this host's worker serves."""
    path = Path(os.environ["HOST_FOLDER"]) / name
    path.write_text(name * 3, encoding="utf-8")
    return Fetched(path=str(path), queue=os.environ["HOST_QUEUE"])


@activity(schedule_to_start=timedelta(minutes=5), retry=RetryPolicy(max_attempts=2))
def count_letters(path: str) -> int:
    return len(Path(path).read_text(encoding="utf-8"))


@activity(schedule_to_start=timedelta(minutes=5))
def delete_file(path: str) -> None:
    Path(path).unlink(missing_ok=True)


@workflow
async def process_file(name: str, tries: int = 3) -> int:
    """The whole sequence moves to another host when the first one is lost."""
    for remaining in reversed(range(tries)):
        fetched = await fetch_file(name)
        try:
            letters = await count_letters.options(queue=fetched.queue)(fetched.path)
            await delete_file.options(queue=fetched.queue)(fetched.path)
        except (ActivityError, TimeoutError):
            if not remaining:
                raise
            continue
        return letters
    raise AssertionError("unreachable")
