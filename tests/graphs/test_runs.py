"""What a history says of the order of things: the golden histories, whose code is known."""

from __future__ import annotations

import json
from pathlib import Path

from durable.core.events import Event
from durable.graphs import Graph, run_graph

HISTORIES = Path(__file__).parents[1] / "core" / "histories"


def graph(name: str) -> Graph:
    recorded = json.loads((HISTORIES / f"{name}.json").read_text())
    return run_graph(name, [Event(*row) for row in recorded["history"]])


def before(graph: Graph, label: str) -> list[str]:
    names = {node.key: node.label for node in graph.nodes}
    key = next(node.key for node in graph.nodes if node.label == label)
    return sorted(names[edge.source] for edge in graph.edges if edge.target == key)


def test_every_golden_history_has_a_picture_without_loose_ends() -> None:
    """Whatever begins within a run is below something, unless it came from outside."""
    for file in HISTORIES.glob("*.json"):
        drawn = graph(file.stem)
        keys = [node.key for node in drawn.nodes]
        assert len(set(keys)) == len(keys)
        assert {edge.source for edge in drawn.edges} | {edge.target for edge in drawn.edges} <= set(
            keys
        )
        reached = {edge.target for edge in drawn.edges}
        loose = [it for it in drawn.nodes if it.key not in reached and it.kind != "start"]
        assert {it.kind for it in loose} <= {"signal", "update", "cancel"}, file.stem


def test_steps_one_after_the_other_are_a_chain() -> None:
    drawn = graph("steps")
    assert [before(drawn, f"golden.step-{number}") for number in (1, 2, 3)] == [
        ["golden.steps"],
        ["golden.step-1"],
        ["golden.step-2"],
    ]
    assert all(node.critical for node in drawn.nodes)


def test_a_gather_is_waited_for_as_a_whole() -> None:
    drawn = graph("asyncio")
    assert before(drawn, "golden.step-3") == ["golden.step-1", "golden.step-2"]


def test_what_is_not_awaited_is_left_behind() -> None:
    drawn = graph("asyncio")
    (left,) = [node for node in drawn.nodes if node.label == "golden.step-4"]
    assert (left.state, left.facts) == ("cancelled", ("left when the workflow ended",))


def test_deadlines_that_did_not_pass_are_no_nodes() -> None:
    labels = [node.label for node in graph("signals").nodes]
    assert not [label for label in labels if label.startswith("call_later")]


def test_compensation_follows_the_failure() -> None:
    drawn = graph("saga")
    failed = next(node for node in drawn.nodes if node.state == "failed")
    assert failed.facts[-1] == "ValueError: the reason"
    assert [node.label for node in drawn.nodes if node.kind == "end"] == ["failed"]
