"""The small samples that need something from outside: a token's holder, a key."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from durable import Client, CompletionRefused
from durable.errors import PayloadError
from samples import medical_record, signed_contract
from samples.medical_record import Finding
from tests.samples.conftest import Working
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]


def test_a_contract_is_signed_days_later_by_whoever_has_the_token(
    client: Client, working: Working
) -> None:
    signed_contract.tokens.clear()
    with working("samples.signed_contract"):
        handle = client.start(signed_contract.close_deal, "Ada", "engine no. 2")
        token = eventually(lambda: signed_contract.tokens.get("Ada, engine no. 2", ""))
    client.complete(token, "signed by Ada")  # nobody works meanwhile
    with pytest.raises(CompletionRefused):
        client.complete(token, "signed twice")
    with working("samples.signed_contract"):
        assert handle.result(timeout=30) == "signed by Ada"


def test_a_contract_that_nobody_signs_is_no_deal(
    client: Client, working: Working, sql: Sql
) -> None:
    signed_contract.tokens.clear()
    with working("samples.signed_contract"):
        handle = client.start(signed_contract.close_deal, "Grace", "engine no. 3")
        waiting = "select 1 from durable.jobs where state = 'waiting'"
        eventually(lambda: sql.execute(waiting).fetchone())
        sql.execute("select durable.advance_clock('15 days')")
        assert handle.result(timeout=30).startswith("no deal")


def test_the_database_sees_no_finding(
    database_url: str, client: Client, working: Working, sql: Sql
) -> None:
    old = medical_record.payloads({"2026": b"a" * 32}, "2026")
    rotated = medical_record.payloads({"2026": b"a" * 32, "2027": b"b" * 32}, "2027")
    finding = Finding(patient="Ada", text="a broken heart")
    with Client(database_url, payloads=old) as keyholder:
        keyholder.start(medical_record.review_finding, finding, id="finding")
    with (
        working("samples.medical_record", payloads=rotated),
        Client(database_url, payloads=rotated) as keyholder,
    ):
        handle = keyholder.handle("finding", medical_record.review_finding)
        assert handle.result(timeout=30) == "Ada: seen, a broken heart"
    texts = sql.execute("select body::text || coalesce(payload::text, '') from durable.history")
    assert not any("broken" in text or "Ada" in text for (text,) in texts.fetchall())
    with pytest.raises(PayloadError):
        client.handle("finding", medical_record.review_finding).result(timeout=5)
