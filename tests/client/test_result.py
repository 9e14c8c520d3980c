"""Results and how runs end without one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from durable.client_sync import Client
from durable.errors import (
    ActivityError,
    InvalidOption,
    PayloadError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTerminated,
)
from durable.failure import encode_failure
from tests.client.database import Database
from tests.client.shop import ORDER, Declined, Invoice, bill, purchase


def test_a_result_has_the_workflows_type(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.end("o-1", "completed", payload={"total": 7})
    assert handle.result() == Invoice(total=7)
    assert client.handle("o-1", purchase).result() == Invoice(total=7)
    assert client.handle("o-1").result() == Invoice(total=7)


def test_a_result_of_an_unknown_workflow_is_plain_json(client: Client, database: Database) -> None:
    database.define("workflow", "registered_only", {})
    client.start("registered_only", id="e-1")
    database.end("e-1", "completed", payload={"total": [7]})
    assert client.handle("e-1").result() == {"total": [7]}


def test_a_stored_result_that_does_not_fit_says_so(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.end("o-1", "completed", payload={"sum": 7})
    with pytest.raises(PayloadError, match="total"):
        handle.result()


def test_a_failure_is_raised_with_its_cause(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.fail("o-1", Declined("no money"))
    with pytest.raises(WorkflowFailed, match="'o-1' failed") as caught:
        handle.result()
    assert isinstance(caught.value.cause, Declined)
    assert str(caught.value.cause) == "no money"
    assert caught.value.run_id == handle.run_id


@pytest.mark.parametrize(
    ("status", "error"), [("cancelled", WorkflowCancelled), ("terminated", WorkflowTerminated)]
)
def test_a_stopped_run_says_why(
    client: Client, database: Database, status: str, error: Any
) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.end("o-1", status, {"reason": "changed my mind"})
    with pytest.raises(error, match="changed my mind"):
        handle.result()


def test_c10_waiting_too_long_is_a_timeout_error(client: Client) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    with pytest.raises(TimeoutError, match="'o-1' has not ended within 0.05 s; it goes on"):
        handle.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0)
    with pytest.raises(InvalidOption, match="timeout"):
        handle.result(timeout=-1)


def test_waiting_ends_when_the_run_does(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(handle.result(timeout=20)))
    waiting.start()
    database.end("o-1", "completed", payload={"total": 7})
    waiting.join(20)
    assert results == [Invoice(total=7)]


def test_nobody_has_no_result(client: Client) -> None:
    with pytest.raises(WorkflowNotFound, match="'nope'"):
        client.handle("nope").result()


def test_a_started_handle_follows_its_own_run_and_its_successors(
    client: Client, database: Database
) -> None:
    first = client.start(purchase, ORDER, id="o-1")
    database.end("o-1", "continued")
    client.start(purchase, ORDER, id="o-1", on_closed="new")
    database.end("o-1", "completed", payload={"total": 2})
    client.start(purchase, ORDER, id="o-1", on_closed="new")
    database.end("o-1", "completed", payload={"total": 3})
    assert first.result() == Invoice(total=2)
    assert client.handle("o-1").result() == Invoice(total=3)


def test_a_job_gives_its_result(client: Client, database: Database) -> None:
    job = client.enqueue(bill, ORDER)
    with pytest.raises(TimeoutError):
        job.result(timeout=0)
    database.rows(
        "update durable.jobs set state = 'completed', finished_at = now(), result = '{\"total\": 7}'"
    )
    assert job.result() == Invoice(total=7)


def test_a_job_that_failed_says_why(client: Client, database: Database) -> None:
    import json

    job = client.enqueue(bill, ORDER)
    errors = [{"attempt": 1, "failure": encode_failure(Declined("no money"))}]
    database.rows(
        "update durable.jobs set state = 'discarded', attempt = 1, finished_at = now(), errors = %s::jsonb",
        json.dumps(errors),
    )
    with pytest.raises(ActivityError, match="'bill' failed at attempt 1") as caught:
        job.result()
    assert isinstance(caught.value.cause, Declined)
