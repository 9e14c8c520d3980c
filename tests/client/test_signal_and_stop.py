"""Signals (C11), cancel (C9), terminate: what is written, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from durable.client_sync import Client
from durable.errors import (
    InvalidOption,
    PayloadError,
    UnknownSignal,
    WorkflowClosed,
    WorkflowNotFound,
)
from tests.client.database import Database
from tests.client.shop import ORDER, Order, Payment, payment_arrived, purchase

PAYMENT = Payment(amount=7)


def test_c11_a_signal_is_evidence_and_a_message(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    receipt = handle.signal(payment_arrived, PAYMENT, actor="bank")
    (evidence,) = handle.signals()
    ((type_, body, payload),) = database.rows("select type, body, payload from durable.inbox")
    assert (receipt.status, receipt.run_id) == ("buffered", handle.run_id)
    assert (evidence.signal_id, evidence.status, evidence.actor) == (
        receipt.signal_id,
        "buffered",
        "bank",
    )
    assert (type_, body, payload) == (
        "SignalReceived",
        {"name": "payment_arrived", "signal_id": receipt.signal_id, "actor": "bank"},
        {"amount": 7},
    )


def test_c11_a_dedupe_key_delivers_once(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER)
    statuses = [handle.signal(payment_arrived, PAYMENT, dedupe_key="k").status for _ in range(3)]
    assert statuses == ["buffered", "duplicate", "duplicate"]
    assert database.counts()["inbox"] == 1
    assert [each.status for each in handle.signals()] == ["buffered", "duplicate", "duplicate"]


def test_c11_a_signal_to_a_closed_run_is_refused_and_kept_as_evidence(
    client: Client, database: Database
) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.end("o-1", "completed")
    with pytest.raises(WorkflowClosed, match="the run is completed"):
        handle.signal(payment_arrived, PAYMENT)
    (evidence,) = handle.signals()
    assert (evidence.status, evidence.reason, evidence.payload) == (
        "late",
        "the run is completed",
        {"amount": 7},
    )
    assert database.counts()["inbox"] == 0


def test_a_signal_to_nobody_is_kept_as_a_refused_command(
    client: Client, database: Database
) -> None:
    with pytest.raises(WorkflowNotFound, match="'nope'"):
        client.handle("nope").signal(payment_arrived, PAYMENT)
    counts = database.counts()
    assert counts.pop("operator_commands") == 1
    assert set(counts.values()) == {0}
    (refused,) = client.handle("nope").commands()
    assert (refused.action, refused.code, refused.reason) == (
        "signal",
        "unknown_workflow",
        "signal payment_arrived",
    )


@pytest.mark.parametrize(
    ("signal", "value", "options", "error", "named"),
    [
        (payment_arrived, {"amount": "seven"}, {}, PayloadError, "amount"),
        (payment_arrived, None, {}, PayloadError, "value"),
        (payment_arrived, Order(sku="tea", amount=7), {}, PayloadError, "value"),
        ("payment_arrived", {"amount": "seven"}, {}, PayloadError, "amount"),
        ("payment_arrived", {}, {}, PayloadError, "amount"),
        ("registered", {"amount": 7}, {}, PayloadError, "not of type 'string'"),
        ("registered", "a\0b", {}, PayloadError, "value"),
        ("regstered", "x", {}, UnknownSignal, "did you mean registered"),
        (purchase, "x", {}, UnknownSignal, "durable.Signal"),
        (payment_arrived, PAYMENT, {"dedupe_key": ""}, InvalidOption, "dedupe_key"),
        (payment_arrived, PAYMENT, {"dedupe_key": "a\0"}, InvalidOption, "dedupe_key"),
        (payment_arrived, PAYMENT, {"actor": 3}, PayloadError, "actor"),
    ],
)
def test_c18_bad_signals_write_nothing(
    client: Client,
    database: Database,
    signal: Any,
    value: Any,
    options: Any,
    error: Any,
    named: str,
) -> None:
    database.define("signal", "registered", {"type": "string"})
    handle = client.start(purchase, ORDER, id="o-1")
    before = database.counts()
    with pytest.raises(error, match=named):
        handle.signal(signal, value, **options)
    assert database.counts() == before


def test_a_signal_by_name_is_checked_by_what_a_worker_registered(
    client: Client, database: Database
) -> None:
    database.define("signal", "registered", {"type": "string"})
    handle = client.start(purchase, ORDER)
    handle.signal("registered", "yes")
    assert handle.signals()[0].payload == "yes"


# -- cancel and terminate ---------------------------------------------------------------------------------------------


def test_c9_cancelling_is_requested_once(client: Client, database: Database) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.claim("o-1")
    assert handle.cancel("changed my mind", actor="ann").status == "requested"
    assert handle.cancel().status == "already_requested"
    assert database.rows("select type, body from durable.inbox") == [
        ("CancelRequested", {"reason": "changed my mind"})
    ]
    assert database.rows(
        "select accepted, reason, actor from durable.operator_commands order by at"
    ) == [
        (True, "changed my mind", "ann"),
        (False, None, None),
    ]


def test_c9_a_run_that_nobody_has_claimed_is_cancelled_at_once(client: Client) -> None:
    handle = client.start(purchase, ORDER)
    handle.cancel("too late")
    assert [event.type for event in handle.history()] == [
        "WorkflowStarted",
        "CancelRequested",
        "WorkflowCancelled",
    ]
    assert handle.describe().status == "cancelled"


def test_terminating_ends_the_run_and_takes_it_from_its_owner(
    client: Client, database: Database
) -> None:
    handle = client.start(purchase, ORDER, id="o-1")
    database.claim("o-1")
    handle.terminate("wrong order", actor={"name": "ann"})
    run = handle.describe()
    assert (run.status, run.owner) == ("terminated", None)
    assert handle.history()[-1].body == {"reason": "wrong order"}


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
def test_stopping_what_has_ended_or_never_was_is_refused(
    client: Client, database: Database, verb: str
) -> None:
    client.start(purchase, ORDER, id="o-1")
    database.end("o-1", "failed")
    with pytest.raises(WorkflowClosed, match="ended already"):
        getattr(client.handle("o-1"), verb)("why")
    with pytest.raises(WorkflowNotFound):
        getattr(client.handle("o-2"), verb)("why")
    with pytest.raises(InvalidOption, match="reason"):
        getattr(client.handle("o-1"), verb)("a\0")
    assert database.rows(
        "select workflow_id, accepted, code from durable.operator_commands order by at"
    ) == [("o-1", False, "workflow_closed"), ("o-2", False, "unknown_workflow")]
