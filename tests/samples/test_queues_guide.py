"""What docs/guide/queues.md shows runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_guides_example_runs(database_url: str) -> None:
    """In a process of its own: limits are set, and the job says that no worker serves its queue."""
    text = (ROOT / "docs/guide/queues.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    path = os.pathsep.join([str(ROOT), str(ROOT / "worker")])
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "PYTHONPATH": path, "DURABLE_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "no_worker - no live worker serves queue 'mail'\n", done.stderr
