"""Payload codecs and the payload store, on a whole system: what the database sees, what the code sees, and what happens without the key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable import Compression, DirectoryStore, Encryption, PostgresStore
from durable.client_sync import Client
from durable.errors import DatabaseUnavailable, PayloadError, WorkflowFailed
from durable.payload_codecs import Payloads
from durable.store.sealed_calls import payload_refs
from tests.system import sealed_flows as flows
from tests.system.conftest import Working
from tests.system.gates import gate
from tests.system.sealed_flows import SECRET, Refused
from tests.waiting import eventually

Sql = psycopg.Connection[tuple[Any, ...]]
MODULES = ("tests.system.flows", "tests.system.sealed_flows")

OLD, NEW = b"k" * 32, b"n" * 16
WITH_OLD = Payloads([Compression(at_least=64), Encryption({"old": OLD}, current="old")])
WITH_BOTH = Payloads(
    [Compression(at_least=64), Encryption({"old": OLD, "new": NEW}, current="new")]
)
WITHOUT = Payloads()

TABLES = "select relname from pg_class where relnamespace = 'durable'::regnamespace and relkind = 'r' and relname <> 'payloads'"


def stored(sql: Sql, but: Sequence[str] = ()) -> str:
    """Every row of every table, as text; but for the payload store's own, which holds what the others refer to."""
    tables = [name for (name,) in sql.execute(TABLES).fetchall() if name not in but]
    assert {"history", "inbox", "signals", "jobs", "updates", "queries", "runs"} <= set(tables)
    texts = [
        sql.execute(f"select coalesce(string_agg(t::text, ' '), '') from durable.{name} t".encode())
        for name in tables
    ]
    return " ".join(row[0] for text in texts for row in text.fetchall())


def test_queries_updates_and_many_jobs_are_sealed_too(
    working: Working, database_url: str, sql: Sql
) -> None:
    with (
        working(*MODULES, payloads=WITH_OLD),
        Client(database_url, payloads=WITH_OLD) as client,
    ):
        handle = client.start(flows.answers_with_secrets, SECRET, id="q")
        assert handle.query("asked", SECRET) == SECRET * 2
        assert handle.update("replaced", SECRET) == f"{SECRET} echoed"
        handle.signal(flows.whisper, SECRET)
        assert handle.result(30) == SECRET
        assert handle.query("asked", "") == SECRET
        made = client.enqueue_many(flows.echo_secret, [(SECRET,)] * 3)
        assert made.created == 3
        eventually(
            lambda: (
                sql.execute(
                    "select count(*) from durable.jobs where state = 'completed'"
                ).fetchone()
                == (3,)
            )
        )
    assert SECRET not in stored(sql)


def test_an_explanation_opens_what_it_has_the_key_for(working: Working, database_url: str) -> None:
    with (
        working(*MODULES, payloads=WITH_OLD),
        Client(database_url, payloads=WITH_OLD) as client,
        Client(database_url, payloads=WITHOUT) as stranger,
    ):
        handle = client.start(flows.fails_with_secrets, SECRET, id="f")
        eventually(lambda: handle.describe().status == "failed")
        assert SECRET in handle.explain().causes[0].sentence
        (cause,) = stranger.explain("f").causes
    assert (cause.code, cause.facts["status"]) == ("ended", "failed")
    assert SECRET not in cause.sentence
    assert "Refused: [compressed, encrypted with key 'old'" in cause.sentence


@pytest.mark.parametrize("eager", [True, False])
def test_nothing_secret_reaches_the_database_and_everything_works(
    working: Working, database_url: str, sql: Sql, eager: bool
) -> None:
    with (
        working(*MODULES, payloads=WITH_OLD, eager=eager, max_cached_runs=0),
        Client(database_url, payloads=WITH_OLD) as client,
    ):
        handle = client.start(flows.keeps_secrets, SECRET, id="s")
        handle.signal(flows.whisper, SECRET)
        assert handle.result(30) == {
            "echoed": f"{SECRET} echoed",
            "said": SECRET,
            "failed": SECRET,
            "child": f"{SECRET} echoed",
        }
        job = client.enqueue(flows.echo_secret, SECRET)
        assert job.result(30) == f"{SECRET} echoed"
        assert client.start(flows.goes_on_with_secrets, SECRET, 2).result(30) == SECRET
        with pytest.raises(WorkflowFailed) as failed:
            client.start(flows.fails_with_secrets, SECRET).result(30)
        assert isinstance(failed.value.cause, Refused)
        assert failed.value.cause.word == SECRET
        history = handle.history()
        assert history[0].payload == {"word": SECRET}
        assert handle.signals()[0].payload == SECRET
    text = stored(sql)
    assert SECRET not in text
    assert "aes-gcm:old" in text
    for readable in ("keeps_secrets", "echo_secret", "sealed_whisper", "sealed_flows:Refused"):
        assert readable in text
    assert sql.execute(
        "select count(*) from durable.history where payload::jsonb is null and payload is not null"
    ).fetchone() == (0,)


def test_replay_works_across_a_rotation_of_keys(
    working: Working, database_url: str, sql: Sql
) -> None:
    with gate(database_url) as barrier:
        with (
            working(*MODULES, payloads=WITH_OLD),
            Client(database_url, payloads=WITH_OLD) as client,
        ):
            handle = client.start(flows.keeps_secrets, SECRET, id="s")
            eventually(lambda: len(handle.history()) >= 3)
        barrier.open()
    with (
        working(*MODULES, payloads=WITH_BOTH),
        Client(database_url, payloads=WITH_BOTH) as client,
    ):
        client.handle("s").signal(flows.whisper, SECRET)
        assert client.handle("s", flows.keeps_secrets).result(30)["failed"] == SECRET
    text = stored(sql)
    assert SECRET not in text
    assert "aes-gcm:old" in text
    assert "aes-gcm:new" in text


def test_a_worker_without_the_key_harms_nothing(
    working: Working, database_url: str, sql: Sql
) -> None:
    with Client(database_url, payloads=WITH_OLD) as client:
        handle = client.start(flows.keeps_secrets, SECRET, id="s")
        job = client.enqueue(flows.echo_secret, SECRET)
        with working(*MODULES, payloads=WITHOUT):
            review = eventually(lambda: handle.describe().review)
            assert "encrypted with key 'old'" in json.dumps(review)
            eventually(
                lambda: (
                    sql.execute(
                        "select note ->> 'kind' from durable.jobs where kind = 'job'"
                    ).fetchone()
                    == ("unreadable",)
                )
            )
        with working(*MODULES, payloads=WITH_OLD):
            handle.signal(flows.whisper, "hi")
            sql.execute("select durable.advance_clock('10 minutes')")
            assert job.result(30) == f"{SECRET} echoed"
            assert handle.result(30)["said"] == "hi"


def test_a_message_that_a_live_run_s_worker_cannot_read_parks_the_run(
    working: Working, database_url: str, sql: Sql
) -> None:
    with Client(database_url, payloads=WITHOUT) as plain:
        handle = plain.start(flows.keeps_secrets, "open", id="s")
        with working(*MODULES, payloads=WITHOUT):
            eventually(lambda: handle.describe().operator_status == "waiting")
            with Client(database_url, payloads=WITH_OLD) as secret:
                secret.handle("s").signal(flows.whisper, SECRET)
            review = eventually(lambda: handle.describe().review)
            assert "encrypted with key 'old'" in json.dumps(review)
        assert [event.type for event in handle.history()].count("SignalReceived") == 0
    with (
        working(*MODULES, payloads=WITH_OLD),
        Client(database_url, payloads=WITH_OLD) as client,
    ):
        sql.execute("select durable.advance_clock('10 minutes')")
        assert client.handle("s", flows.keeps_secrets).result(30)["said"] == SECRET


def test_without_the_key_clients_see_what_is_missing(
    working: Working, database_url: str, sql: Sql
) -> None:
    with (
        working(*MODULES, payloads=WITH_OLD),
        Client(database_url, payloads=WITH_OLD) as client,
    ):
        done = client.start(flows.goes_on_with_secrets, SECRET, 0, id="done")
        done.result(30)
        failed = client.start(flows.fails_with_secrets, SECRET, id="failed")
        failed.outcome(30)
    with Client(database_url, payloads=WITHOUT) as blind:
        with pytest.raises(PayloadError, match="encrypted with key 'old'"):
            blind.handle("done").result(30)
        with pytest.raises(PayloadError, match="encrypted with key 'old'"):
            blind.handle("done", flows.goes_on_with_secrets).result(30)
        with pytest.raises(WorkflowFailed) as seen:
            blind.handle("failed").result(30)
        assert "encrypted with key 'old', " in str(seen.value.cause)
        assert type(seen.value.cause) is Refused
        first, *_ = blind.handle("done").history()
        assert first.payload["durable:unreadable"].startswith("encrypted with key 'old', ")
        assert first.body["workflow"] == "goes_on_with_secrets"


# -- the payload store ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["directory", "postgres"])
def test_large_payloads_are_kept_elsewhere(
    working: Working, database_url: str, sql: Sql, tmp_path: Path, kind: str
) -> None:
    store = DirectoryStore(tmp_path) if kind == "directory" else PostgresStore(database_url)
    payloads = Payloads([Encryption({"old": OLD}, current="old")], store, threshold=10_000)
    with (
        working(*MODULES, payloads=payloads, max_cached_runs=0),
        Client(database_url, payloads=payloads) as client,
    ):
        # 3 MiB: more than a payload may have without a store
        handle = client.start(flows.carries_much, 3 * 1024)
        assert handle.result(60) == 3 * 1024 * 1024
        assert len(stored(sql, but=("definitions", "migration"))) < 20_000
        refs = eventually(lambda: client._execute(_refs()))
        assert len(refs) >= 2
        client.delete_unused_payloads(timedelta(0))  # messages were sealed once more as events
        refs = eventually(lambda: client._execute(_refs()))
        assert handle.history()[-1].payload == 3 * 1024 * 1024
        sql.execute("delete from durable.history")  # pruned
        # Put just now: somebody may be about to refer to them.
        assert client.delete_unused_payloads() == 0
        assert client.delete_unused_payloads(timedelta(0)) == len(refs)
    if isinstance(store, PostgresStore):
        store.close()


def test_the_same_content_is_kept_once(
    working: Working, database_url: str, sql: Sql, tmp_path: Path
) -> None:
    payloads = Payloads(store=DirectoryStore(tmp_path), threshold=10_000)
    with (
        working(*MODULES, payloads=payloads),
        Client(database_url, payloads=payloads) as client,
    ):
        client.start(flows.carries_much, 20).result(30)
    refs = sql.execute("select count(*) from durable.payload_refs()").fetchone()
    assert refs == (3,)  # two results, one argument that wraps the same list
    assert len(list(tmp_path.glob("??/*"))) == 2


def test_a_store_that_does_not_answer_delays_and_loses_nothing(
    working: Working, database_url: str, sql: Sql, tmp_path: Path
) -> None:
    class Moody(DirectoryStore):
        broken = True

        def put(self, key: str, data: bytes) -> None:
            if self.broken:
                raise OSError("the share is not mounted")
            super().put(key, data)

    store = Moody(tmp_path)
    payloads = Payloads(store=store, threshold=10_000)
    with (
        working(*MODULES, payloads=payloads) as background,
        Client(database_url, payloads=payloads) as client,
    ):
        handle = client.start(flows.carries_much, 20)
        with pytest.raises(DatabaseUnavailable, match="nothing was written"):
            client.start(flows.keeps_secrets, "x" * 20_000)
        eventually(lambda: background.worker.committer._pause_s > 0)
        store.broken = False
        assert handle.result(60) == 20 * 1024


def _refs() -> Any:
    return payload_refs()


def test_the_command_line_has_the_keys_of_the_app(
    working: Working, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "vault.py").write_text(
        f"import durable\ndurable.use_payloads(durable.Encryption({{'old': {OLD!r}}}, current='old'))\n"
    )
    with (
        working(*MODULES, payloads=WITH_OLD),
        Client(database_url, payloads=WITH_OLD) as client,
    ):
        client.start(flows.goes_on_with_secrets, "w", 0, id="done").result(30)
    command = [sys.executable, "-m", "durable", "history", "done"]
    place = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    known = {**os.environ, "DURABLE_DATABASE_URL": database_url, "PYTHONPATH": place}
    blind, seeing = (
        subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60, env={**known, **more}
        ).stdout
        for more in ({}, {"DURABLE_APP": "vault"})
    )
    assert "[encrypted with key 'old', " in blind
    assert '"w echoed"' not in blind
    assert "w echoed" in seeing
