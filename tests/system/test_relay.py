"""Relay (S166): the result of a job, awaited in another process than the one that enqueued it, or runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from durable import Client
from tests.system.conftest import Working
from tests.system.job_flows import member

ROOT = Path(__file__).parents[2]
FLOWS = ("tests.system.flows", "tests.system.job_flows")
WAITER = """
import sys
from durable import ActivityError, Client

with Client(sys.argv[1]) as client:
    job = client.job(sys.argv[2])
    print(job.describe().state, flush=True)
    try:
        print(repr(job.result(timeout=float(sys.argv[3]))))
    except (ActivityError, TimeoutError) as error:
        print(type(error).__name__, type(error.__cause__ or getattr(error, "cause", None)).__name__)
"""


@contextmanager
def waiter(url: str, job_id: str, timeout: float) -> Iterator[subprocess.Popen[str]]:
    """A process that has nothing of ours but the database and the job's id, and has looked once."""
    command = [sys.executable, "-c", WAITER, url, job_id, str(timeout)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "available\n"
        yield process


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0].strip()


def test_another_process_gets_the_result(
    working: Working, client: Client, database_url: str
) -> None:
    job = client.enqueue(member, 7)
    with waiter(database_url, job.job_id, 60) as process, working(*FLOWS):
        assert said(process) == "7"


def test_another_process_gets_the_failure(
    working: Working, client: Client, database_url: str
) -> None:
    job = client.enqueue(member, -7)
    with waiter(database_url, job.job_id, 60) as process, working(*FLOWS):
        assert said(process) == "ActivityError ValueError"


def test_who_waits_gives_up_and_the_job_goes_on(
    working: Working, client: Client, database_url: str
) -> None:
    job = client.enqueue(member, 7)
    with waiter(database_url, job.job_id, 0.05) as process:
        assert said(process).startswith("TimeoutError")
    with working(*FLOWS):
        assert job.result(timeout=60) == 7
