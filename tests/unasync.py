"""Writes the synchronous client from the asynchronous one: `python tests/unasync.py`.

One description, no twins by hand. The rules are whole-word replacements; what they cannot say is not written in the asynchronous file.
`test_unasync.py` fails when a committed file is not what this gives.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

FILES = {
    "durable/dag_steps_async.py": "durable/dag_steps_sync.py",
    "durable/completing_async.py": "durable/completing_sync.py",
    "durable/store/transactions_async.py": "durable/store/transactions_sync.py",
    "durable/store/client_session_async.py": "durable/store/client_session_sync.py",
    "durable/batches_async.py": "durable/batches_sync.py",
    "durable/job_batches_async.py": "durable/job_batches_sync.py",
    "durable/operations_async.py": "durable/operations_sync.py",
    "durable/conversation_async.py": "durable/conversation_sync.py",
    "durable/handles_async.py": "durable/handles_sync.py",
    "durable/jobs_async.py": "durable/jobs_sync.py",
    "durable/groups_async.py": "durable/groups_sync.py",
    "durable/queues_async.py": "durable/queues_sync.py",
    "durable/client_async.py": "durable/client_sync.py",
    "durable/evidence_async.py": "durable/evidence_sync.py",
    "durable/explaining_async.py": "durable/explaining_sync.py",
    "durable/retention_async.py": "durable/retention_sync.py",
    "durable/scheduling_async.py": "durable/scheduling_sync.py",
}

HEADING = "# Generated from {source} by tests/unasync.py; edit that file.\n\n"

RULES = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\basyncio\.Lock\b", "threading.Lock"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\basyncio\.to_thread\(\s*([\w.]+),\s*", r"\1("),
    (r"\basyncio\.Semaphore\b", "threading.Semaphore"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bimport asyncio\n", "import threading\nimport time\n"),
    (r"\bpsycopg\.Async(Connection|Cursor)\b", r"psycopg.\1"),
    (r"\b(ensure_current|joined|take)_async\b", r"\1"),
    (
        r"\bAsync(Connection|Transaction|ClientSession|Client|Handle|JobHandle|JobGroup|JobChain|Jobs|Groups|QueueHandle|Queues|Scheduling|ScheduleHandle|Transactions|Retention|Conversation|UpdateHandle|RunOperations|PendingActivity|Batches|JobBatches|Completing|DagSteps|Explaining|Evidencing|RunEvidence)\b",
        r"\1",
    ),
    (
        r"\b(client_session|client|conversation|handles|jobs|groups|queues|scheduling|transactions|retention|operations|batches|job_batches|completing|dag_steps|explaining|evidence)_async\b",
        r"\1_sync",
    ),
    (r"\bAn asynchronous\b", "A synchronous"),
    (r"\basynchronous\b", "synchronous"),
]


def synchronous(source: str) -> str:
    """The text that belongs into the synchronous file of `source`, formatted."""
    text = (ROOT / source).read_text(encoding="utf-8")
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    target = FILES[source]
    for arguments in (["check", "--quiet", "--fix", "--select", "I,F401"], ["format", "--quiet"]):
        text = _ruff([*arguments, "--stdin-filename", target, "-"], text)
    return HEADING.format(source=source) + text


def _ruff(arguments: list[str], text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if not done.stdout:
        raise RuntimeError(done.stderr)
    return done.stdout


def main() -> None:
    for source, target in FILES.items():
        (ROOT / target).write_text(synchronous(source), encoding="utf-8")


if __name__ == "__main__":
    main()
