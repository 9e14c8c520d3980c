"""What `durable graph` and `durable watch` say of runs that really ran."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psycopg
import pytest

from durable import cli
from durable.client_sync import Client
from durable.dag import Dag, edge, item, result
from durable.graphs import Graph, run_graph
from tests.system import dag_flows, flows, graph_flows
from tests.system.conftest import Working
from tests.waiting import eventually

MODULES = ("tests.system.graph_flows", "tests.system.dag_flows")
HOUR_US = 3_600_000_000


class Shell:
    """Runs `durable ARGUMENTS` in this process."""

    def __init__(
        self, url: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        patch.setenv("DURABLE_DATABASE_URL", url)
        patch.setenv("DURABLE_APP", "")
        self.patch = patch
        self._capsys = capsys
        self.code = 0

    def __call__(self, *arguments: str) -> str:
        self.patch.setattr(sys, "argv", ["durable", *arguments])
        self.code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            self.code = int(str(exit_.code or 0))
        said = self._capsys.readouterr()
        return said.out + said.err


@pytest.fixture
def shell(
    system_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell(system_url, monkeypatch, capsys)


def advance(sql: psycopg.Connection[Any], by: str) -> None:
    sql.execute("select durable.advance_clock(%s::interval)", (by,))


def drawn(shell: Shell, *arguments: str) -> dict[str, Any]:
    """The graph as JSON, its nodes by label."""
    graph = json.loads(shell("graph", *arguments, "--json"))
    graph["nodes"] = {node["label"]: node for node in graph["nodes"]}
    return dict(graph)


def before(graph: dict[str, Any], label: str) -> set[str]:
    """The labels of what a node waited for."""
    names = {node["key"]: node["label"] for node in graph["nodes"].values()}
    key = graph["nodes"][label]["key"]
    return {names[edge["source"]] for edge in graph["edges"] if edge["target"] == key}


def test_an_execution_shows_who_waited_for_what_and_how_long(
    working: Working, client: Client, sql: psycopg.Connection[Any], shell: Shell
) -> None:
    with working(*MODULES):
        handle = client.start(graph_flows.order, id="g-1")
        eventually(lambda: handle.describe().waiting_on)
        advance(sql, "1 day")
        waiting = drawn(shell, "g-1")
        handle.signal(graph_flows.graph_paid, 10)
        eventually(lambda: "sleep" in drawn(shell, "g-1")["nodes"])
        advance(sql, "2 hours")
        assert handle.result(timeout=30) == 10
    signal = waiting["nodes"]["graph_paid"]
    assert (signal["state"], signal["end_us"]) == ("waiting", None)
    assert signal["facts"][0].startswith("for 1d")
    done = drawn(shell, "g-1")
    nodes = done["nodes"]
    assert before(done, "graph_paid") == {"graph.reserve-1", "graph.reserve-2"}  # the gather's
    assert nodes["graph_paid"]["facts"] == ["waited 1d"]
    assert before(done, "graph.flaky") == {"graph_paid"}
    assert "attempt 3" in nodes["graph.flaky"]["facts"]
    assert nodes["sleep"]["end_us"] - nodes["sleep"]["begin_us"] >= 2 * HOUR_US
    assert (nodes["graph.child"]["kind"], before(done, "graph.child")) == ("child", {"sleep"})
    assert nodes["graph.decline"]["state"] == "failed"
    assert "NonRetryable: the card has expired" in nodes["graph.decline"]["facts"]
    assert nodes["graph.reserve x 9"]["facts"][0] == "9 completed"
    assert before(done, "completed") == {"graph.reserve x 9"}
    critical = [label for label, node in nodes.items() if node["critical"]]
    assert {"graph.order", "graph_paid", "sleep", "completed"} <= set(critical)


def test_a_run_that_only_waits_shows_since_when(
    working: Working, client: Client, sql: psycopg.Connection[Any], shell: Shell
) -> None:
    """Nothing in the history stands for a signal without a deadline."""
    with working():
        handle = client.start(flows.listens, 1, id="w-1")
        eventually(lambda: handle.describe().waiting_on)
        advance(sql, "5 minutes")
        graph = drawn(shell, "w-1")
        picture = shell("graph", "w-1", "--width", "90")
        handle.signal(flows.word, "now")
        handle.result(timeout=30)
    assert graph["nodes"]["word"]["state"] == "waiting"
    assert graph["nodes"]["word"]["facts"][0].startswith("for 5m")
    assert before(graph, "word") == {"listens"}
    assert "~ word" in picture
    assert "waited 5m" in drawn(shell, "w-1")["nodes"]["word"]["facts"][0]


def steps() -> Dag:
    return (
        Dag("mixed", on_failure="complete")
        .add("fetch", dag_flows.fetch, {"id": 7})
        .map("double", dag_flows.double, result("fetch", "orders"), {"amount": item()})
        .add("charge", dag_flows.decline, {"amount": 9}, deps=["double"])
        .add("ship", dag_flows.note, {"text": "x"}, deps=["charge"])
        .add("tell", dag_flows.note, {"text": "sorry"}, deps=[edge("charge", policy="continue")])
        .add("never", dag_flows.note, {"text": "x"}, when=result("fetch", "id").gt(7))
        .add("hangs", dag_flows.hangs, deps=["never", "fetch"])
    )


def test_a_dag_shows_the_state_of_each_step(
    working: Working, client: Client, sql: psycopg.Connection[Any], shell: Shell
) -> None:
    with working(*MODULES):
        handle = client.start(steps(), id="d-1")
        eventually(lambda: drawn(shell, "d-1")["nodes"]["tell"]["state"] == "completed")
        advance(sql, "3 minutes")
        running = drawn(shell, "d-1")
        handle.cancel()
        eventually(lambda: handle.describe().status == "cancelled")
    states = {label: node["state"] for label, node in running["nodes"].items()}
    assert states == {
        "fetch": "completed", "double": "completed", "charge": "failed", "ship": "cancelled",
        "tell": "completed", "never": "skipped", "hangs": "running",
    }  # fmt: skip
    facts = {label: node["facts"] for label, node in running["nodes"].items()}
    assert "3 of 3 begun are done" in facts["double"]
    assert "NonRetryable: 9 is too much" in facts["charge"]
    assert "because of charge" in facts["ship"]
    assert any(fact.startswith("for 3m") for fact in facts["hangs"])
    assert before(running, "tell") == {"charge"}
    assert drawn(shell, "d-1")["nodes"]["hangs"]["state"] in ("cancelled", "failed")
    assert "hangs" in drawn(shell, "d-1", "--execution")["nodes"]["dag.hangs"]["detail"]


def test_a_dag_shows_nested_dags_waits_and_steps_that_were_added(
    working: Working, client: Client, shell: Shell
) -> None:
    inner = Dag("inner").add("a", dag_flows.note, {"text": "x"})
    dag = (
        Dag("outer")
        .add("nested", inner)
        .add("plan", graph_flows.plan, expand=True, deps=["nested"])
        .wait("word", signal=dag_flows.approved, deps=["plan"])
    )
    with working(*MODULES):
        handle = client.start(dag, id="n-1")
        eventually(lambda: drawn(shell, "n-1")["nodes"]["word"]["state"] == "waiting")
        waiting = drawn(shell, "n-1")
        handle.cancel()
    nodes = waiting["nodes"]
    assert (nodes["nested"]["kind"], nodes["nested"]["state"]) == ("dag", "completed")
    assert any(fact.startswith("took") for fact in nodes["nested"]["facts"])
    assert nodes["word"]["facts"] == ["for signal dag.approved"]
    assert before(waiting, "pack") == {"plan"}
    assert before(waiting, "label") == {"pack", "plan"}
    assert nodes["label"]["state"] == "completed"


def test_formats_go_to_files_by_their_ending(shell: Shell, tmp_path: Path) -> None:
    stored = tmp_path / "mixed.json"
    stored.write_text(json.dumps(steps().to_json()))
    for name in ("it.svg", "it.dot", "it.mmd", "it.txt"):
        assert "wrote mixed" in shell("graph", "--file", str(stored), "-o", str(tmp_path / name))
    assert ET.parse(tmp_path / "it.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "it.dot").read_text().startswith('digraph "mixed"')
    assert "flowchart TD" in (tmp_path / "it.mmd").read_text()
    assert "- fetch" in (tmp_path / "it.txt").read_text()
    assert "flowchart TD" in shell("graph", "--file", str(stored), "--format", "mermaid")
    lines = shell("graph", "--file", str(stored), "--width", "44").splitlines()
    assert max(map(len, lines)) <= 44


def test_a_definition_in_yaml_is_drawn(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(
        "format: 1\nname: nightly\nsteps:\n- {name: read, activity: read}\n- {name: sum, activity: add_up, deps: [read]}\n"
    )
    graph = drawn(shell, "--file", str(file))
    assert before(graph, "sum") == {"read"}
    assert graph["nodes"]["sum"]["facts"] == ["add_up"]


def test_an_undone_step_says_so(working: Working, client: Client, shell: Shell) -> None:
    dag = (
        Dag("undone")
        .add("reserve", dag_flows.note, {"text": "x"}, undo=graph_flows.unreserve)
        .add("charge", dag_flows.decline, {"amount": 9}, deps=["reserve"])
    )
    with working(*MODULES):
        handle = client.start(dag, id="u-1")
        eventually(lambda: handle.describe().status == "failed")
    assert "undo: undone" in drawn(shell, "u-1")["nodes"]["reserve"]["facts"]


def test_an_exported_history_is_drawn_without_a_database(
    working: Working, client: Client, shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "history.json"
    with working(*MODULES):
        handle = client.start(graph_flows.child, id="c-1")
        handle.result(timeout=30)
        handle.export().save(file)
    assert {"graph.child", "graph.reserve", "completed"} == set(
        drawn(shell, "--file", str(file), "--url", "host=/nonexistent")["nodes"]
    )


def test_bad_input_names_the_remedy(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    cases = [
        ((), "or --file FILE", 2),
        (("--file", str(tmp_path / "none.json")), "No such file", 2),
        (("--file", str(tmp_path / "x.json")), "neither a DAG's definition", 2),
        (("o-1", "--format", "png"), "there is ascii, mermaid, dot and svg", 2),
        (("nobody",), "no workflow has the id", 3),
    ]
    for arguments, said, code in cases:
        assert said in shell("graph", *arguments)
        assert shell.code == code


def test_watch_in_a_pipe_tells_each_event_once_until_the_end(
    working: Working, client: Client, shell: Shell
) -> None:
    with working(*MODULES):
        client.start(graph_flows.child, id="c-1")
        lines = shell("watch", "c-1").splitlines()
        assert shell.code == 0
        client.start(graph_flows.child, id="c-2").cancel()
        events = [json.loads(line) for line in shell("watch", "c-2", "--json").splitlines()]
    assert [line.split()[1] for line in lines[:-1]] == [
        "WorkflowStarted", "ActivityScheduled", "ActivityCompleted", "WorkflowCompleted",
    ]  # fmt: skip
    assert lines[-1] == "c-1 completed"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert shell.code == {"WorkflowCompleted": 0, "WorkflowCancelled": 5}[events[-1]["type"]]


def test_watch_follows_a_run_while_it_goes_on(
    working: Working, client: Client, sql: psycopg.Connection[Any], shell: Shell
) -> None:
    """The end comes from another thread, after the beginning has been told."""
    told: list[str] = []

    def tell(text: str = "", **_: Any) -> None:
        told.append(text)

    shell.patch.setattr("durable.cli.graph.line", tell)
    with working(*MODULES):
        handle = client.start(steps(), id="d-1")
        cancelling = threading.Thread(
            target=lambda: (
                eventually(lambda: any("dag.hangs" in line for line in told)),
                handle.cancel("seen enough"),
            )
        )
        cancelling.start()
        shell("watch", "d-1")
        cancelling.join()
    assert (shell.code, told[-1]) == (5, "d-1 cancelled")


def test_watch_on_a_terminal_draws_the_picture_again(
    working: Working, client: Client, shell: Shell
) -> None:
    shell.patch.setattr("durable.cli.graph.is_terminal", lambda: True)
    with working(*MODULES):
        client.start(graph_flows.child, id="c-1").result(timeout=30)
        said = shell("watch", "c-1")
    assert "+ graph.child" in said
    assert "  + graph.reserve" in said
    assert said.splitlines()[-1] == "c-1 completed"


def test_a_picture_is_the_same_for_the_same_history(working: Working, client: Client) -> None:
    with working(*MODULES):
        handle = client.start(graph_flows.child, id="c-1")
        handle.result(timeout=30)
        events = handle.export().events

    def picture() -> Graph:
        return run_graph("c-1", events)

    assert picture() == picture()
