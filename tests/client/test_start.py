"""Starting: idempotent by id (C20), refused before anything is written (C18), within the caller's transaction."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import (
    InvalidOption,
    PayloadError,
    UnknownActivity,
    UnknownWorkflow,
    WorkflowAlreadyExists,
    WorkflowNotFound,
    WorkflowTerminated,
)
from durable.handles_sync import Handle
from tests.client.database import Database
from tests.client.shop import ORDER, Order, bill, nothing, purchase


def test_a_start_writes_the_run_and_its_first_event(client: Client) -> None:
    handle = client.start(
        purchase,
        ORDER,
        id="o-1",
        actor="ann",
        attributes={"region": "eu"},
        memo={"n": 1},
        headers={"trace": "t"},
    )
    run = handle.describe()
    (event,) = handle.history()
    assert handle.created
    assert (run.workflow_id, run.run_id, run.status) == ("o-1", handle.run_id, "running")
    assert (run.queue, run.priority, run.version) == ("orders", 3, 1)
    assert (run.actor, run.attributes, run.memo) == ("ann", {"region": "eu"}, {"n": 1})
    assert event.type == "WorkflowStarted"
    assert event.payload == {"order": {"sku": "tea", "amount": 7}}
    assert event.body == {
        "workflow": "purchase",
        "version": 1,
        "semantics": 1,
        "workflow_id": "o-1",
        "queue": "orders",
        "priority": 3,
        "actor": "ann",
        "headers": {"trace": "t"},
        "attributes": {"region": "eu"},
    }


def test_options_override_the_workflows_own(client: Client) -> None:
    run = client.start(
        purchase, ORDER, queue="vip", priority=0, delay=timedelta(hours=1)
    ).describe()
    assert (run.queue, run.priority, run.operator_status) == ("vip", 0, "waiting")
    assert run.ready_at is not None
    assert run.ready_at - run.created_at == timedelta(hours=1)


def test_ids_are_made_in_order(client: Client) -> None:
    first, second = client.start(nothing), client.start(nothing)
    assert first.workflow_id != second.workflow_id
    assert first.workflow_id[14] == "7"


def test_starting_again_gives_the_same_run(client: Client, database: Database) -> None:
    first = client.start(purchase, ORDER, id="o-1")
    before = database.counts()
    again = client.start(purchase, Order(sku="other", amount=1), id="o-1")
    assert (again.run_id, again.created) == (first.run_id, False)
    assert database.counts() == before


@pytest.mark.parametrize(
    ("ended", "options", "outcome"),
    [
        (None, {"on_running": "existing"}, "same"),
        (None, {"on_running": "fail"}, "refused"),
        (None, {"on_closed": "new"}, "same"),
        ("completed", {}, "same"),
        ("completed", {"on_closed": "existing"}, "same"),
        ("completed", {"on_closed": "new"}, "new"),
        ("completed", {"on_closed": "new_if_failed"}, "same"),
        ("completed", {"on_closed": "fail"}, "refused"),
        ("failed", {"on_closed": "new_if_failed"}, "new"),
        ("failed", {"on_closed": "fail"}, "refused"),
        ("failed", {"on_running": "fail"}, "same"),
        ("cancelled", {"on_closed": "new_if_failed"}, "new"),
    ],
)
def test_c20_policies(
    client: Client, database: Database, ended: str | None, options: dict[str, Any], outcome: str
) -> None:
    first = client.start(purchase, ORDER, id="o-1")
    if ended:
        database.end("o-1", ended)
    if outcome == "refused":
        with pytest.raises(WorkflowAlreadyExists, match="'o-1' exists already"):
            client.start(purchase, ORDER, id="o-1", **options)
        return
    again = client.start(purchase, ORDER, id="o-1", **options)
    assert (again.run_id == first.run_id) == (outcome == "same")
    assert again.created == (outcome == "new")


RUNNING = {"existing": "same", "fail": "refused", "terminate": "new"}
CLOSED = {"existing": "same", "new": "new", "new_if_failed": "new", "fail": "refused"}


@pytest.mark.parametrize("ended", [None, "completed", "failed", "cancelled", "terminated"])
def test_c20_every_pair_of_policies(client: Client, database: Database, ended: str | None) -> None:
    for on_running, on_closed in product(RUNNING, CLOSED):
        id_ = f"{on_running}-{on_closed}"
        first = client.start(purchase, ORDER, id=id_)
        if ended:
            database.end(id_, ended)
        expected = CLOSED[on_closed] if ended else RUNNING[on_running]
        if (ended, on_closed) == ("completed", "new_if_failed"):
            expected = "same"
        options: dict[str, Any] = {"on_running": on_running, "on_closed": on_closed}
        if expected == "refused":
            with pytest.raises(WorkflowAlreadyExists):
                client.start(purchase, ORDER, id=id_, **options)
        else:
            again = client.start(purchase, ORDER, id=id_, **options)
            assert (again.run_id != first.run_id) == (expected == "new"), options


def test_c20_terminate_replaces_the_running_one(client: Client, database: Database) -> None:
    client.start(purchase, ORDER, id="o-1")
    database.claim("o-1")
    again = client.start(purchase, ORDER, id="o-1", on_running="terminate", actor="ops")
    assert database.rows("select generation, status, owner from durable.runs order by 1") == [
        (0, "terminated", None),
        (1, "running", None),
    ]
    assert again.created
    assert database.rows(
        "select action, accepted, reason, actor from durable.operator_commands"
    ) == [("terminate", True, "replaced by a new start", "ops")]
    with pytest.raises(WorkflowTerminated, match="replaced by a new start"):
        outcome = database.rows("select run_id::text from durable.runs where status = 'terminated'")
        Handle(client, "o-1", outcome[0][0], None).result(5)


def test_a_start_delay_is_kept_by_the_database(client: Client, database: Database) -> None:
    run = client.start(purchase, ORDER, delay=timedelta(hours=2)).describe()
    assert (run.operator_status, run.ready_at) == ("waiting", run.created_at + timedelta(hours=2))
    assert database.rows("select staged from durable.stage_due(32)") == [(0,)]
    database.rows("select durable.advance_clock('2 hours')")
    assert database.rows("select staged from durable.stage_due(32)") == [(1,)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 1001}, "id"),
        ({"id": "a\0b"}, "id"),
        ({"id": "a\ud800b"}, "id"),
        ({"id": 5}, "id"),
        ({"queue": ""}, "queue"),
        ({"queue": "a\nb"}, "queue"),
        ({"priority": 10}, "priority"),
        ({"priority": True}, "priority"),
        ({"delay": -1}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"delay": timedelta(days=4000)}, "delay"),
        ({"attributes": {"a": float("inf")}}, "attributes"),
        ({"attributes": {"a": "\0"}}, "attributes"),
        ({"attributes": {1: 2}}, "attributes"),
        ({"attributes": {"a": object()}}, "attributes"),
        ({"attributes": {"a": "x" * 70_000}}, "attributes"),
        ({"memo": [1]}, "memo"),
        ({"headers": {"a": {1, 2}}}, "headers"),
        ({"actor": 5}, "actor"),
        ({"on_running": "maybe"}, "on_running"),
        ({"on_closed": "maybe"}, "on_closed"),
    ],
)
def test_c18_bad_options_name_the_option_and_write_nothing(
    client: Client, database: Database, options: dict[str, Any], named: str
) -> None:
    with pytest.raises((InvalidOption, PayloadError)) as caught:
        client.start(purchase, ORDER, **options)
    assert str(caught.value).startswith(named)
    assert set(database.counts().values()) == {0}


@pytest.mark.parametrize(
    ("args", "arguments", "named"),
    [
        (("tea",), {}, "order"),
        ((), {}, "order"),
        ((ORDER, True, 3), {}, "purchase"),
        ((ORDER,), {"colour": "red"}, "colour"),
        ((ORDER,), {"gift": "perhaps"}, "gift"),
        ((Order(sku="a\0b", amount=1),), {}, "order.sku"),
    ],
)
def test_c18_bad_arguments_name_the_parameter_and_write_nothing(
    client: Client, database: Database, args: Any, arguments: Any, named: str
) -> None:
    with pytest.raises(PayloadError, match=named):
        client.start(purchase, *args, **arguments)
    assert set(database.counts().values()) == {0}


@pytest.mark.parametrize("thing", [print, purchase.fn, bill, None, 3])
def test_only_a_workflow_is_started(client: Client, thing: Any) -> None:
    with pytest.raises(UnknownWorkflow, match="@workflow"):
        client.start(thing)


# -- by name ----------------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


def test_a_name_finds_what_this_process_has_imported(client: Client) -> None:
    handle = client.start("purchase", {"order": {"sku": "tea", "amount": "7"}, "gift": True})
    assert handle.history()[0].payload == {"order": {"sku": "tea", "amount": 7}, "gift": True}
    assert handle.describe().queue == "orders"


def test_a_name_finds_what_a_worker_has_registered(client: Client, database: Database) -> None:
    database.define("workflow", "registered_only", SCHEMA, queue="far")
    handle = client.start("registered_only", {"n": 1})
    assert handle.history()[0].payload == {"n": 1}
    assert handle.describe().queue == "far"


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("registered_only", {"n": "x"}, "n: 'x' is not of type 'integer'"),
        ("registered_only", {}, "'n' is a required property"),
        ("registered_only", {"n": 1, "m": 2}, "'m' was unexpected"),
        ("purchase", {"order": 1}, "order"),
        ("purchase", {}, "order"),
        ("purchase", [1], "one mapping"),
    ],
)
def test_c18_arguments_by_name_are_checked(
    client: Client, database: Database, name: str, arguments: Any, named: str
) -> None:
    database.define("workflow", "registered_only", SCHEMA)
    with pytest.raises(PayloadError, match=named):
        client.start(name, arguments)
    assert set(database.counts().values()) == {0}


def test_an_unknown_name_says_what_is_known(client: Client, database: Database) -> None:
    with pytest.raises(UnknownWorkflow, match="no worker has registered"):
        client.start("registered_olny")
    database.define("workflow", "registered_only", SCHEMA)
    with pytest.raises(UnknownWorkflow, match="did you mean registered_only"):
        client.start("registered_olny")


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_an_activity_is_enqueued_with_its_options(client: Client, database: Database) -> None:
    job = client.enqueue(bill, ORDER, priority=1).describe()
    assert (job.name, job.queue, job.priority, job.state, job.attempt) == (
        "bill",
        "payments",
        1,
        "available",
        0,
    )
    ((options, input_),) = database.rows("select options, input from durable.jobs")
    assert options["retry"] == {"max_attempts": 3}
    assert options["timeouts"] == {"start_to_close_s": 30.0}
    assert input_ == {"order": {"sku": "tea", "amount": 7}}


def test_enqueueing_is_idempotent_by_id(client: Client, database: Database) -> None:
    job_id = uuid4()
    client.enqueue(bill, ORDER, id=job_id)
    client.enqueue(bill, ORDER, id=job_id)
    assert database.counts()["jobs"] == 1


def test_a_bad_job_is_refused(client: Client, database: Database) -> None:
    with pytest.raises(PayloadError, match="order"):
        client.enqueue(bill, 5)  # type: ignore[arg-type]
    with pytest.raises(UnknownActivity, match="@activity"):
        client.enqueue(purchase, ORDER)
    with pytest.raises(InvalidOption, match="id"):
        client.enqueue(bill, ORDER, id="five")  # type: ignore[call-overload]
    assert database.counts()["jobs"] == 0


# -- within the caller's transaction ----------------------------------------------------------------------------------


def test_operations_commit_with_the_callers_rows(client: Client, database: Database) -> None:
    with psycopg.connect(database.url) as mine:
        handle = client.start(purchase, ORDER, id="o-1", connection=mine)
        handle.signal("payment_arrived", {"amount": 7}, connection=mine)
        job = client.enqueue(bill, ORDER, connection=mine)
        assert set(database.counts().values()) == {0}
        with pytest.raises(WorkflowNotFound):
            handle.describe()
        mine.commit()
    assert handle.describe().status == "running"
    assert job.describe().state == "available"
    assert [signal.status for signal in handle.signals()] == ["buffered"]


def test_operations_roll_back_with_the_callers_rows(client: Client, database: Database) -> None:
    with psycopg.connect(database.url) as mine:
        handle = client.start(purchase, ORDER, connection=mine)
        handle.cancel(connection=mine)
        job = client.enqueue(bill, ORDER, connection=mine)
        mine.rollback()
    assert set(database.counts().values()) == {0}
    with pytest.raises(WorkflowNotFound):
        handle.result(timeout=1)
    with pytest.raises(WorkflowNotFound):
        job.result(timeout=1)


# -- hints ------------------------------------------------------------------------------------------------------------


def _hints(listener: psycopg.Connection[Any]) -> list[str]:
    """What has arrived: a round trip brings everything that was committed before it."""
    listener.execute("select 1")
    return [note.payload for note in listener.notifies(timeout=0)]


@pytest.fixture
def listener(database_url: str) -> Any:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("listen durable")
        yield connection


def test_c4_a_start_hints_once_in_a_while(
    client: Client, listener: psycopg.Connection[Any]
) -> None:
    client.start(purchase, ORDER)
    assert _hints(listener) == ["runs:orders"]
    client._session._hinted["runs:orders"] = float("inf")  # as if a hint had just been given
    client.start(purchase, ORDER)
    assert _hints(listener) == []


def test_c4_a_hint_within_a_transaction_leaves_with_its_commit(
    client: Client, listener: psycopg.Connection[Any], database: Database
) -> None:
    with psycopg.connect(database.url) as mine:
        client.start(purchase, ORDER, connection=mine)
        assert _hints(listener) == []
    assert _hints(listener) == ["runs:orders"]


def test_c4_a_signal_hints_its_owner(
    client: Client, listener: psycopg.Connection[Any], database: Database
) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.claim("o-1")
    handle.signal("payment_arrived", {"amount": 7})
    assert _hints(listener) == ["runs:orders", f"worker:{handle.describe().owner}"]


def test_c4_no_hint_without_notify(listener: psycopg.Connection[Any], database: Database) -> None:
    with Client(database.url, notify=False) as quiet:
        quiet.start(purchase, ORDER).signal("payment_arrived", {"amount": 7})
    assert _hints(listener) == []
