"""What the README shows runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from durable import Client

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_workflow_the_worker_and_the_client(
    client: Client, database_url: str, tmp_path: Path
) -> None:
    workflow, program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "shop.py").write_text(workflow, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "worker")))
    environment = {**os.environ, "PYTHONPATH": path, "DURABLE_DATABASE_URL": database_url}
    worker = [sys.executable, "-m", "durable_worker", "shop", "--queue", "default=20"]
    with subprocess.Popen(worker, cwd=tmp_path, env=environment) as process:
        try:
            said = subprocess.run(
                [sys.executable, "program.py"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            process.terminate()
    assert said.stdout == "charged 10 cents for o-1\n", said.stderr
    assert client.handle("o-1").describe().status == "completed"


def test_every_link_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_it_counts_the_orders_right() -> None:
    from samples.checkout import cases

    assert f"the {len(cases.load().orders)} orders" in README
