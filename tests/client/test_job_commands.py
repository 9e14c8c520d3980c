"""Edits of waiting jobs, and commands over all jobs that pass a filter (S135, S136): what is legal, what is recorded, and in passes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from durable import InvalidOption, JobRefused, PayloadError, Unique, activity
from durable.client_sync import Client
from durable.core.job_life import STATES
from durable.descriptions import BatchProgress
from durable.jobs_sync import JobHandle
from durable.testing import manual
from tests.client.database import Database


@activity(queue="letters")
def letter(to: str, copies: int = 1) -> None: ...


def force(database: Database, job: JobHandle[Any], state: str) -> None:
    """Bring a job to a state as a worker would."""
    ended = state in ("completed", "discarded", "cancelled")
    database.rows(
        "update durable.jobs set state = %s, owner = case when %s then gen_random_uuid() end,"
        " finished_at = case when %s then durable.now() end where run_id = %s",
        state, state == "executing", ended, job.job_id,
    )  # fmt: skip


def log(database: Database) -> list[tuple[Any, ...]]:
    return database.rows(
        "select action, accepted, code, reason, actor #>> '{}' from durable.operator_commands order by at, command_id"
    )


# -- one job ------------------------------------------------------------------------------------------------------------


def test_a_waiting_job_is_changed_and_the_log_says_how_it_was(
    client: Client, database: Database
) -> None:
    job = client.enqueue(letter, "ann", tags=["old"], meta={"tenant": 7})
    job.edit(
        arguments={"to": "bob", "copies": 3}, priority=2, queue="slow", tags=["New "], meta={"tenant": 8},
        reason="a typing error", actor="eve",
    )  # fmt: skip
    found = job.describe()
    assert (found.arguments, found.priority, found.queue) == ({"to": "bob", "copies": 3}, 2, "slow")
    assert (found.tags, found.meta, found.state) == (["new"], {"tenant": 8}, "available")
    assert log(database) == [("edit_job", True, "accepted", "a typing error", "eve")]
    ((before, after),) = database.rows("select before, after from durable.operator_commands")
    assert (before["priority"], after["priority"]) == (0, 2)
    assert (before["tags"], after["queue"]) == (["old"], "slow")
    assert before["arguments"] != after["arguments"]


def test_what_is_not_named_stays(client: Client) -> None:
    job = client.enqueue(letter, "ann", tags=["x"], meta={"a": 1}, delay=60)
    before = job.describe()
    job.edit(priority=5)
    after = job.describe()
    assert (after.tags, after.meta, after.scheduled_at) == (["x"], {"a": 1}, before.scheduled_at)
    assert (after.state, after.queue, after.arguments) == ("scheduled", "letters", {"to": "ann"})
    job.edit(tags=[], meta={})
    assert (job.describe().tags, job.describe().meta) == ([], {})


def test_the_time_moves_a_job_between_scheduled_and_available(client: Client) -> None:
    job = client.enqueue(letter, "ann")
    job.edit(at=datetime.now(UTC) + timedelta(hours=1))
    assert job.describe().state == "scheduled"
    job.edit(delay=0)
    assert job.describe().state == "available"


def test_a_retryable_job_waits_as_long_as_it_is_told(client: Client, database: Database) -> None:
    job = client.enqueue(letter, "ann")
    force(database, job, "retryable")
    job.edit(delay=timedelta(hours=2))
    found = job.describe()
    assert found.state == "retryable"
    assert found.scheduled_at > datetime.now(UTC) + timedelta(minutes=110)


def test_waiting_for_a_worker_counts_from_the_new_time(client: Client, database: Database) -> None:
    later = letter.options(schedule_to_start=timedelta(minutes=5))
    job = client.enqueue("letter", {"to": "ann"})
    database.rows(
        "update durable.jobs set options = options || %s::jsonb",
        '{"timeouts": {"schedule_to_start_s": 300}}',
    )
    assert later is not letter
    job.edit(delay=3600)
    ((kind, wait),) = database.rows(
        "select deadline_kind, deadline_at - durable.now() from durable.jobs"
    )
    assert (kind, timedelta(minutes=64) < wait < timedelta(minutes=66)) == (
        "schedule_to_start",
        True,
    )


@pytest.mark.parametrize(
    "state", [it for it in STATES if it not in ("scheduled", "available", "retryable")]
)
def test_a_job_that_does_not_wait_is_left_alone(
    client: Client, database: Database, state: str
) -> None:
    job = client.enqueue(letter, "ann")
    force(database, job, state)
    with pytest.raises(JobRefused, match="execut|ended|elsewhere"):
        job.edit(priority=5)
    assert job.describe().priority == 0
    assert [row[:2] for row in log(database)] == [("edit_job", False)]


def test_what_made_the_unique_key_and_what_belongs_to_a_queue_stays(client: Client) -> None:
    unique = client.enqueue(letter, "ann", unique=Unique())
    with pytest.raises(JobRefused, match="unique key"):
        unique.edit(arguments={"to": "bob"})
    unique.edit(priority=3)
    keyed = client.enqueue(letter, "ann", serial_key="ann")
    with pytest.raises(JobRefused, match="belongs to"):
        keyed.edit(queue="other")
    keyed.edit(queue="letters")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "what to change"),
        ({"at": datetime.now(UTC), "delay": 1}, "not both"),
        ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"priority": 10}, "priority"),
        ({"tags": "x"}, "list of texts"),
        ({"queue": ""}, "queue"),
    ],
)
def test_a_change_is_checked_before_anything_is_written(
    client: Client, database: Database, change: dict[str, Any], says: str
) -> None:
    job = client.enqueue(letter, "ann")
    with pytest.raises(InvalidOption, match=says):
        job.edit(**change)
    assert log(database) == []


def test_new_arguments_are_checked_as_at_the_enqueue(client: Client) -> None:
    job = client.enqueue(letter, "ann")
    with pytest.raises(PayloadError, match="copies"):
        job.edit(arguments={"to": "ann", "copies": "many"})
    assert job.describe().arguments == {"to": "ann"}


def test_an_edit_joins_the_callers_transaction(client: Client, database_url: str) -> None:
    job = client.enqueue(letter, "ann")
    with psycopg.connect(database_url) as mine:
        job.edit(priority=4, connection=mine)
        mine.rollback()
    assert job.describe().priority == 0


def test_an_edit_in_memory() -> None:
    with manual() as jobs, Client("postgresql://nowhere") as client:
        job = client.enqueue(letter, "ann", delay=60)
        job.edit(arguments={"to": "bob"}, delay=0, meta={"a": 1}, priority=3)
        assert (jobs.jobs[0].arguments, jobs.jobs[0].meta) == ({"to": "bob"}, {"a": 1})
        assert (job.describe().state, job.describe().priority) == ("available", 3)
        jobs.drain()
        with pytest.raises(JobRefused, match="has ended"):
            job.edit(priority=1)


# -- many ---------------------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_and_writes_nothing(client: Client, database: Database) -> None:
    client.enqueue_many(letter, (("ann", n) for n in range(7)), meta={"tenant": 7})
    client.enqueue(letter, "bob", tags=["vip"])
    for where, expected in (
        ("activity=letter", 8), ("meta.tenant=7", 7), ("argument.copies=3", 1), ("tag=vip", 1), ("tag=vip meta.tenant=7", 0),
        ("state=available,retryable queue=letters", 8), ({"state": ["completed"]}, 0), ({"meta": {"tenant": 7}}, 7),
    ):  # fmt: skip
        counted = client.batch_jobs("cancel", where, reason="try", dry_run=True)
        assert (counted.matched, counted.accepted) == (expected, 0), where
    assert database.rows("select count(*) from durable.batches") == [(0,)]
    assert log(database) == []


def test_a_batch_goes_over_all_in_passes_and_records_each(
    client: Client, database: Database
) -> None:
    client.enqueue_many(letter, (("ann", n) for n in range(450)))
    other = client.enqueue(letter, "ann", queue="other")
    passes: list[BatchProgress] = []
    done = client.batch_jobs(
        "cancel", "queue=letters state=available", reason="a flood", actor="eve", progress=passes.append
    )  # fmt: skip
    assert (done.matched, done.accepted, done.refused) == (450, 450, 0)
    assert [it.accepted for it in passes] == [200, 400, 450]
    assert done.finished_at is not None
    assert database.rows("select state, count(*) from durable.jobs group by 1 order by 1") == [
        ("available", 1),
        ("cancelled", 450),
    ]
    assert other.describe().state == "available"
    assert set(log(database)) == {("cancel_job", True, "accepted", "a flood", "eve")}
    assert {it.batch_id for it in client.commands(10, batch_id=done.batch_id)} == {done.batch_id}
    assert [it.action for it in client.batches()] == ["cancel_jobs"]


def test_a_batch_that_was_broken_off_goes_on_where_it_was(
    client: Client, database: Database
) -> None:
    client.enqueue_many(letter, (("ann", n) for n in range(450)))

    class Dies(Exception): ...

    def die(progress: BatchProgress) -> None:
        raise Dies

    with pytest.raises(Dies):
        client.batch_jobs("delete", "queue=letters", reason="a flood", progress=die)
    assert database.counts()["jobs"] == 250
    late = client.enqueue(letter, "late")
    (broken,) = client.batches()
    done = client.resume_batch(broken.batch_id)
    assert (done.accepted, done.refused) == (450, 0)
    assert [job.job_id for job in client.jobs()] == [late.job_id], "what came later is not meant"
    assert client.resume_batch(broken.batch_id).accepted == 450


def test_jobs_are_retried_and_changed_by_filter(client: Client, database: Database) -> None:
    jobs = [client.enqueue(letter, "ann", n) for n in range(4)]
    for job, state in zip(jobs, ("discarded", "discarded", "completed", "executing"), strict=True):
        force(database, job, state)
    assert client.batch_jobs("retry", "state=discarded", reason="mended").accepted == 2
    assert [job.describe().state for job in jobs[:2]] == ["available", "available"]
    done = client.batch_jobs(
        "edit", "activity=letter", reason="later", priority=9, delay=60, tags=["late"]
    )
    assert (done.accepted, done.refused) == (2, 2)
    assert [job.describe().priority for job in jobs] == [9, 9, 0, 0]
    assert {job.describe().state for job in jobs[:2]} == {"scheduled"}
    refused = [it.code for it in client.commands(10, batch_id=done.batch_id) if not it.accepted]
    assert sorted(refused) == ["job_ended", "job_executing"]


def test_a_batch_of_a_group(client: Client) -> None:
    group = client.enqueue_group(letter, [("ann",), ("bob",)])
    client.enqueue(letter, "eve")
    assert client.batch_jobs("cancel", {"group": group.group_id}, reason="no").accepted == 2
    assert group.describe().cancelled == 2


@pytest.mark.parametrize(
    ("action", "where", "options", "says"),
    [
        ("cancel", "", {}, "every job"),
        ("cancel", {}, {}, "every job"),
        ("cancel", {"state": []}, {}, "state is empty"),
        ("cancel", {"meta": {}}, {}, "empty"),
        ("cancel", {"tags": []}, {}, "empty"),
        ("cancel", "state=done", {}, "state is 'done'"),
        ("cancel", "colour=red", {}, "no condition 'colour'"),
        ("cancel", "red", {}, "conditions look like"),
        ("cancel", "group=x", {}, "UUID"),
        ("burn", "state=available", {}, "action"),
        ("cancel", "state=available", {"priority": 3}, "no priority="),
        ("edit", "state=available", {}, "what to change"),
        ("edit", "state=available", {"colour": 3}, "colour"),
    ],
)
def test_a_batch_is_checked_before_anything_is_done(
    client: Client, database: Database, action: Any, where: Any, options: dict[str, Any], says: str
) -> None:
    client.enqueue(letter, "ann")
    with pytest.raises(InvalidOption, match=says):
        client.batch_jobs(action, where, reason="no", **options)
    assert database.rows("select count(*) from durable.batches") == [(0,)]


def test_a_pass_that_meets_a_worker_in_the_other_order_is_made_again(
    client: Client, database: Database, database_url: str
) -> None:
    """Two rows locked in opposite orders: whichever PostgreSQL ends, the batch ends."""
    import threading

    low, high = sorted(
        (client.enqueue(letter, "ann", n) for n in range(2)), key=lambda it: it.job_id
    )
    with psycopg.connect(database_url) as worker:
        lock = "select 1 from durable.jobs where run_id = %s for update"
        worker.execute("set deadlock_timeout = '1 h'")
        worker.execute(lock, (low.job_id,))
        batch = threading.Thread(
            target=lambda: client.batch_jobs("cancel", "queue=letters", reason="no")
        )
        batch.start()
        while not database.rows("select 1 from pg_locks where not granted"):
            pass
        worker.execute(lock, (high.job_id,))
        worker.commit()
        batch.join(30)
    assert {low.describe().state, high.describe().state} == {"cancelled"}
