"""Old histories keep old rules when a newer semantics version changes one (C16)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import durable
from durable.core import semantics
from durable.core.execution import Execution
from durable.core.run import Run
from durable.definitions import Workflow, registered_workflows
from durable.errors import InternalError, NewerSemantics, NondeterminismError
from tests.core import golden
from tests.core.simulation import SECOND, Simulation, as_stored

RULE = "test.whole_minutes"


@pytest.fixture
def version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release whose version 2 rounds sleeps up to minutes. Production code has no such rule; this branch stands for one."""
    monkeypatch.setitem(semantics.SINCE, RULE, 2)
    monkeypatch.setattr(semantics, "CURRENT", 2)
    sleep = Run.sleep

    def by_rule(run: Run, delay_us: int) -> Any:
        minutes = -(-delay_us // (60 * SECOND))
        return sleep(run, minutes * 60 * SECOND if run.follows(RULE) else delay_us)

    monkeypatch.setattr(Run, "sleep", by_rule)


def sleeper() -> Workflow[..., Any]:
    async def sleeps() -> None:
        await durable.sleep(90)

    return Workflow(sleeps, "sleeps", 1, None, None, None)


def slept_s(sim: Simulation) -> float:
    sim.run()
    fire_at_us: int = sim.find(2).body["fire_at_us"]
    return (fire_at_us - sim.history[0].at_us) / SECOND


@pytest.mark.usefixtures("version_2")
@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.json")), ids=lambda it: it.stem)
def test_histories_of_version_1_replay_under_the_rules_of_1(path: Path) -> None:
    stored = golden.loaded(path)
    assert stored["history"][0].body["semantics"] == 1
    workflow = next(it for it in registered_workflows() if it.name == stored["workflow"])
    execution = Execution(workflow, UUID(stored["run_id"]), "wf")
    execution.replay(stored["history"])
    assert execution.closed


@pytest.mark.usefixtures("version_2")
def test_each_run_goes_on_under_the_rules_that_it_began_with() -> None:
    one = Simulation(sleeper(), start={"semantics": 1})
    two = Simulation(sleeper(), start={"semantics": 2})
    assert slept_s(one) == pytest.approx(90, abs=1)
    assert slept_s(two) == pytest.approx(120, abs=1)
    one.check()
    two.check()


@pytest.mark.usefixtures("version_2")
def test_the_version_decides_and_nothing_else() -> None:
    """The same history under the other version is another run's: the comparison says so (C13)."""
    sim = Simulation(sleeper(), start={"semantics": 1}).run()
    first = sim.history[0]
    changed = [first._replace(body={**first.body, "semantics": 2}), *sim.history[1:]]
    with pytest.raises(NondeterminismError, match="fire_at_us"):
        sim.fresh().replay(as_stored(changed))


def test_a_run_from_before_versions_were_recorded_is_of_version_1() -> None:
    sim = Simulation(sleeper())
    body = {key: value for key, value in sim.history[0].body.items() if key != "semantics"}
    sim.fresh().replay([sim.history[0]._replace(body=body)])


def test_a_run_of_a_newer_release_is_refused_whole() -> None:
    with pytest.raises(NewerSemantics, match="upgrade the worker") as caught:
        Simulation(sleeper(), start={"semantics": semantics.CURRENT + 1})
    assert (caught.value.version, caught.value.known) == (semantics.CURRENT + 1, semantics.CURRENT)


def test_a_rule_without_a_name_in_the_register_is_a_bug() -> None:
    with pytest.raises(InternalError, match="no rule"):
        semantics.holds("unheard of", 1)


def test_every_rule_belongs_to_a_version_that_exists() -> None:
    assert all(1 < since <= semantics.CURRENT for since in semantics.SINCE.values())
