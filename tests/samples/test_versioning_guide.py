"""What docs/guide/versioning.md shows runs as it stands there, in a process of its own: its names are everybody's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guide"

PROGRAM = """
import importlib

from durable.definitions import registered_workflows
from durable.errors import NondeterminismError
from durable.histories import RecordedHistory
from durable.testing import replay_history
from tests.core.simulation import RUN_ID, Simulation

first = importlib.import_module("first")
second = importlib.import_module("second")
versions = importlib.import_module("versions")


def exported(workflow, *args):
    sim = Simulation(workflow, *args).run().check()
    return sim, RecordedHistory(workflow.name, 1, "wf", str(RUN_ID), "completed", tuple(sim.history))


sim, history = exported(first.order, 5)
assert sim.result == "charged 5, receipt sent"
assert sim.types[1] == "PatchRecorded"
replay_history(second.order, history)
assert exported(second.order, 5)[0].types[1] == "PatchRecorded"

assert {(it.name, it.version) for it in registered_workflows("versions")} >= {("order", 1), ("order", 2)}
assert exported(versions.order_1, 5)[0].result == "charged 5"
assert versions.settlement.pinned
history.save("tests/histories/o-1.json")
try:
    versions.test_open_orders_can_go_on()
except NondeterminismError as error:
    assert "PatchRecorded" in str(error)  # that order had taken the change, and version 1 here has not got it
account = Simulation(versions.account)
account.turn(account.signalled(versions.deposit, 7))
assert not account.decision.closed
print("it runs")
"""


def test_the_guide_to_versioning(tmp_path: Path) -> None:
    text = (GUIDES / "versioning.md").read_text(encoding="utf-8")
    patched, deprecated, *others = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shared = patched.partition("@workflow")[0]
    (tmp_path / "first.py").write_text(patched, encoding="utf-8")
    (tmp_path / "second.py").write_text(shared + deprecated, encoding="utf-8")
    (tmp_path / "versions.py").write_text(
        "from first import charge, charge_with_receipt\n" + "\n".join(others), encoding="utf-8"
    )
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "tests" / "histories").mkdir(parents=True)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "worker", tmp_path)))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("it runs\n", "")
