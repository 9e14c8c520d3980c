"""Old histories keep their meaning (C16), and histories do not depend on the process that writes them (C13)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from durable.core.execution import Execution
from durable.core.machine import CLOSES, INBOUND, OUTBOUND
from durable.definitions import registered_workflows
from tests.core import golden
from tests.core.simulation import without_traces

FILES = sorted(golden.FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda it: it.stem)
def test_golden_history_replays(path: Path) -> None:
    stored = golden.loaded(path)
    workflow = next(it for it in registered_workflows() if it.name == stored["workflow"])
    execution = Execution(workflow, UUID(stored["run_id"]), "wf")
    execution.replay(stored["history"])
    assert execution.closed
    assert execution.last_seq == stored["history"][-1].seq


@pytest.mark.parametrize("name", golden.SCENARIOS)
def test_scenario_still_gives_its_golden_history(name: str) -> None:
    """New runs do today what runs of that semantics version did then."""
    then = golden.loaded(golden.FOLDER / f"{name}.json")["history"]
    now = golden.SCENARIOS[name]().check().history
    strip = [it._replace(body={k: v for k, v in it.body.items() if k != "line"}) for it in then]
    strip_now = [it._replace(body={k: v for k, v in it.body.items() if k != "line"}) for it in now]
    assert without_traces(strip_now) == without_traces(strip)


def test_goldens_cover_every_event() -> None:
    seen = {row.type for path in FILES for row in golden.loaded(path)["history"]}
    outside = {
        "ActivityTimedOut",
        "ActivityCancelled",
    }  # a worker's words; as closes they are like ActivityFailed
    assert seen | outside >= {*INBOUND, *OUTBOUND, "WorkflowStarted"}
    assert outside <= set(CLOSES)


@pytest.mark.parametrize("seed", ["1", "4711"])
def test_histories_do_not_depend_on_the_hash_seed(seed: str) -> None:
    code = (
        "from tests.core import golden\n"
        "from tests.core.simulation import without_traces\n"
        "junk = [object() for _ in range(%s)]\n"  # other addresses, too
        "for name, scenario in golden.SCENARIOS.items():\n"
        "    then = golden.loaded(golden.FOLDER / f'{name}.json')['history']\n"
        "    now = scenario().history\n"
        "    assert [it.type for it in now] == [it.type for it in then], name\n"
        "    assert now[-1].payload == then[-1].payload, name\n"
    ) % (int(seed) % 1000)
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
