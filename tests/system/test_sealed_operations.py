"""What operators do leaves no more in the clear than what the code does: values by hand, the log of commands, batches, forks, the archive."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.errors import PayloadError
from tests.system import sealed_flows
from tests.system import sealed_operations_flows as flows
from tests.system.conftest import Working
from tests.system.sealed_flows import SECRET
from tests.system.test_sealed_payloads import MODULES, WITH_OLD, WITHOUT, stored
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
ALL = (*MODULES, "tests.system.sealed_operations_flows")


def paused_activity(client: Client, after: int) -> int:
    """The number of the activity after event `after` that waits for an operator."""
    handle = client.handle("m")
    return eventually(
        lambda: next((it.seq for it in handle.pending() if it.state == "paused" and it.seq > after), 0)
    )  # fmt: skip


def test_values_by_hand_and_the_log_of_commands(
    working: Working, system_url: str, sql: Sql
) -> None:
    with (
        working(*ALL, payloads=WITH_OLD, max_cached_runs=0),
        Client(system_url, payloads=WITH_OLD) as client,
    ):
        handle = client.start(flows.mended_in_secret, SECRET, id="m")
        first = paused_activity(client, 0)
        handle.activity(first).edit_input({"word": SECRET}, "a typo")
        handle.activity(first).retry("mended")
        second = paused_activity(client, first)
        handle.activity(second).set_result(f"{SECRET} by hand", "looked it up")
        third = paused_activity(client, second)
        handle.activity(third).set_failure(f"never {SECRET}", "policy")
        done = client.batch(
            "signal", "workflow=mended_in_secret", reason="all", signal="sealed_whisper", value=SECRET
        )  # fmt: skip
        assert (done.accepted, done.refused) == (1, 0)
        assert client.batches()[0].options == {"signal": "sealed_whisper", "value": SECRET}
        with Client(system_url, payloads=WITHOUT) as keyless:
            assert SECRET not in str(keyless.batches())
            with pytest.raises(PayloadError, match="no codec 'aes-gcm'"):
                keyless.resume_batch(done.batch_id)
        said = [f"{SECRET} taken", f"{SECRET} by hand", f"never {SECRET}", SECRET]
        assert handle.result(30) == said
        fork = handle.fork("m-2", "once more", to_event=third, reapply_signals=True)
        fork.activity(third).set_result(SECRET, "by hand again")
        assert fork.result(30) == [*said[:2], SECRET]  # nothing failed there
        log = client.commands(50)
        assert {it.action for it in log} > {"activity_edit_input", "activity_set_result"}
    assert SECRET not in stored(sql)


def test_jobs_that_are_changed_and_the_archive(working: Working, system_url: str, sql: Sql) -> None:
    with Client(system_url, payloads=WITH_OLD) as client:
        job = client.enqueue(flows.kept_for_later, SECRET, delay=timedelta(hours=1))
        job.edit(arguments={"word": f"{SECRET}!"}, delay=timedelta(0), reason="sooner")
        with working(*ALL, payloads=WITH_OLD):
            assert job.result(30) == f"{SECRET}! kept"
            handle = client.start(sealed_flows.goes_on_with_secrets, SECRET, 0, id="g")
            assert handle.result(30) == SECRET
        assert SECRET not in stored(sql)
        sql.execute("select durable.advance_clock('2 days')")
        assert client.prune(older_than=timedelta(days=1), archive=True).archived == 2
        assert SECRET not in stored(sql)
        (kept,) = client.archived("g")
        assert SECRET in str(kept.record)
