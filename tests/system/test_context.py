"""Actor and headers travel client -> workflow -> activity -> child -> signal, and nobody is anonymous where that is required."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import durable
from durable.client_sync import Client
from durable.errors import ActorRequired, InvalidOption, PayloadError, WorkflowFailed
from tests.system import context_flows as flows
from tests.system.conftest import Working
from tests.system.context_flows import User

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.context_flows")
ANNA = User("anna", frozenset({"clerk"}))


def expected(station: list[Any]) -> dict[str, Any]:
    return {
        "workflow": station,
        "thread": station,
        "loop": station,
        "child": [*station, *station, station],
    }


@pytest.mark.parametrize("eager", [True, False])
def test_both_reach_every_station(working: Working, client: Client, eager: bool) -> None:
    headers = {"trace": "t-1", "tenant": {"id": 7}}
    with working(*MODULES, eager=eager):
        result = client.start(flows.looks_everywhere, actor=ANNA, headers=headers).result(30)
    assert result == expected([repr(ANNA), headers])


def test_without_any_there_are_none(working: Working, client: Client) -> None:
    with working(*MODULES):
        result = client.start(flows.looks_everywhere).result(30)
    assert result == expected(["None", {}])


def test_they_survive_continue_as_new(working: Working, client: Client) -> None:
    with working(*MODULES, eager=False):
        handle = client.start(flows.looks_again_after_continuing, 2, actor="bob", headers={"h": 1})
        assert handle.result(30) == ["'bob'", {"h": 1}, ["'bob'", {"h": 1}]]


def test_nobody_changes_them_within_a_run(working: Working, client: Client) -> None:
    with working(*MODULES):
        said = client.start(flows.tries_to_change_them, headers={"a": "b"}).result(30)
    assert said == "{'a': 'b'}"


def test_a_client_takes_them_from_its_surroundings(client: Client) -> None:
    with (
        durable.acting_as(ANNA, headers={"request": "r-1"}),
        durable.acting_as(headers={"span": "s"}),
    ):
        assert durable.current_actor() == ANNA
        handle = client.start(flows.looks_everywhere, headers={"span": "mine"})
    assert durable.current_actor() is None
    assert durable.headers() == {}
    body = handle.history()[0].body
    assert body["actor"] == {
        "durable:type": "test-user",
        "value": {"name": "anna", "roles": ["clerk"]},
    }
    assert body["headers"] == {"request": "r-1", "span": "mine"}


def test_a_standalone_job_has_them_too(working: Working, client: Client) -> None:
    with working(*MODULES):
        job = client.enqueue(flows.looks_in_a_thread, actor=ANNA, headers={"h": "v"})
        assert job.result(30) == [repr(ANNA), {"h": "v"}]


def test_only_allowed_types_are_rebuilt(working: Working, client: Client) -> None:
    stranger = {"durable:type": "os.system"}
    with working(*MODULES):
        result = client.start(flows.looks_everywhere, actor=stranger).result(30)
    assert result["workflow"][0] == repr(stranger)


def test_a_plain_mapping_may_not_pose_as_an_allowed_type(client: Client) -> None:
    with pytest.raises(InvalidOption, match="durable:type"):
        client.start(flows.looks_everywhere, actor={"durable:type": "test-user", "value": {}})


def test_what_cannot_be_stored_is_refused(client: Client) -> None:
    with pytest.raises(PayloadError, match="headers"):
        client.start(flows.looks_everywhere, headers={"when": object()})
    with pytest.raises(PayloadError, match="actor"):
        client.start(flows.looks_everywhere, actor=7)


def test_two_types_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidOption, match="test-user"):
        durable.context_type(name="test-user")(dict)


# -- require_actor ----------------------------------------------------------------------------------------------------


def test_start_signal_and_enqueue_are_refused_without_an_actor(client: Client, sql: Sql) -> None:
    waiting = client.start(flows.waits_for_approval, id="w")
    before = sql.execute("select count(*) from durable.history").fetchone()
    with pytest.raises(ActorRequired, match="workflow 'signed_flow' requires an actor"):
        client.start(flows.signed_flow)
    with pytest.raises(ActorRequired, match="signal 'signed_approval'"):
        waiting.signal(flows.approval, True)
    with pytest.raises(ActorRequired, match="activity 'signed_job'"):
        client.enqueue(flows.signed_job)
    assert sql.execute("select count(*) from durable.history").fetchone() == before
    assert sql.execute("select count(*) from durable.signals").fetchone() == (0,)
    assert sql.execute("select count(*) from durable.jobs").fetchone() == (0,)


def test_with_an_actor_they_are_taken(working: Working, client: Client) -> None:
    with working(*MODULES), durable.acting_as("carol"):
        assert client.start(flows.signed_flow).result(30) == "carol"
        assert client.enqueue(flows.signed_job).result(30) == "carol"
        waiting = client.start(flows.waits_for_approval)
        waiting.signal(flows.approval, True, actor="dave")
        assert waiting.result(30) == [True, "dave"]


def test_a_parent_without_an_actor_cannot_start_such_a_child(
    working: Working, client: Client
) -> None:
    with working(*MODULES):
        with pytest.raises(WorkflowFailed) as failed:
            client.start(flows.starts_signed_child).result(30)
        assert isinstance(failed.value.cause, ActorRequired)
        assert client.start(flows.starts_signed_child, actor="erin").result(30) == "erin"


def test_by_name_and_from_sql_it_holds_as_well(
    working: Working, client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(*MODULES):
        with pytest.raises(psycopg.Error, match="requires an actor"):
            sql.execute("select durable.start('signed_flow')")
        client.start(flows.waits_for_approval, id="by-sql")
        with pytest.raises(psycopg.Error, match="requires an actor"):
            sql.execute("select durable.signal('by-sql', 'signed_approval', 'true')")
        sql.execute("select durable.signal('by-sql', 'signed_approval', 'true', null, '\"fay\"')")
        assert client.handle("by-sql").result(30) == [True, "fay"]
    monkeypatch.setattr("durable.targets.local_workflow", lambda _: None)
    monkeypatch.setattr("durable.targets.local_signal", lambda _: None)
    with pytest.raises(ActorRequired):
        client.start("signed_flow", {})
    client.start(flows.waits_for_approval, id="by-name")
    with pytest.raises(ActorRequired):
        client.handle("by-name").signal("signed_approval", True)
    body = client.start("signed_flow", {}, actor="gus").history()[0].body
    assert json.dumps(body["actor"]) == '"gus"'
