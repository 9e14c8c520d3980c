"""Random queues with random limits, under two workers: no limit is ever passed, every job runs, and keys take turns (S163–S167, issue 4).

Against the database alone, with its clock moved by hand; that limits hold over real processes and their deaths is in tests/system/test_queues.py.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

PERIOD_S = 60
KEYS = ("a", "b", "c", "d")
LOOSE = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

rates = st.none() | st.fixed_dictionaries(
    {"limit": st.integers(1, 9), "period_s": st.just(PERIOD_S), "kind": st.sampled_from(["window", "bucket"])}
)  # fmt: skip
limits = st.fixed_dictionaries(
    {
        "global_limit": st.none() | st.integers(1, 6), "key_limit": st.none() | st.integers(1, 3),
        "rate_limit": rates, "key_rate_limit": rates,
    }
)  # fmt: skip
jobs = st.lists(
    st.tuples(
        st.sampled_from([None, *KEYS]), st.booleans(), st.integers(0, 2), st.sampled_from([1, 2, 5])
    ),
    min_size=1,
    max_size=16,
)
"""Key, whether it is a serial one, priority and weight of each."""


class Hall:
    """A queue, its jobs, and the workers that claim from it; `now_s` is the clock that is moved by hand."""

    def __init__(self, url: str) -> None:
        self.sql = psycopg.connect(url, autocommit=True)
        self.workers = [str(uuid4()), str(uuid4())]
        for worker in self.workers:
            self.sql.execute(
                "insert into durable.workers (worker_id, name, state, queues, started_at, beat_at, lease_until)"
                " values (%s, 'hall', 'alive', '{}', durable.now(), durable.now(), durable.now() + interval '10 years')",
                (worker,),
            )

    def open(self, given: dict[str, Any], wanted: list[Any]) -> None:
        self.sql.execute("truncate durable.jobs, durable.queues, durable.queue_meters")
        names = ", ".join(given)
        values = [Jsonb(it) if isinstance(it, dict) else it for it in given.values()]
        self.sql.execute(
            f"insert into durable.queues (name, keyed, created_at, updated_at, {names})"
            f" values ('q', true, durable.now(), durable.now(), %s, %s, %s, %s)".encode(),
            values,
        )
        for key, serial, priority, weight in wanted:
            options: dict[str, Any] = {"weight": weight}
            if key is not None:  # a key is either serial or not
                options |= (
                    {"limit_key": key + "!", "serial": True} if serial else {"limit_key": key}
                )
            self.sql.execute(
                "insert into durable.jobs (shard, run_id, seq, kind, name, queue, priority, state, scheduled_at, input, options, created_at)"
                " select durable.shard_of(i.id::text), i.id, 0, 'job', 'x', 'q', %s, 'available', durable.now(), '{}', %s, durable.now()"
                " from durable.uuid7() as i(id)",
                (priority, Jsonb(options)),
            )

    def claim(self, worker: int, count: int) -> list[tuple[str, str | None, bool, float]]:
        """The id, key, seriality and weight of each job taken."""
        return self.sql.execute(
            "select j.run_id::text, j.limit_key, j.serial, j.weight from durable.claim_jobs(%s, '{q}', %s, %s) c"
            " join durable.jobs j using (shard, run_id, seq)",
            (self.workers[worker], [count], random.Random(count).random() < 0.2),
        ).fetchall()

    def end(self, job_id: str, state: str) -> None:
        finished = "durable.now()" if state == "completed" else "null"
        self.sql.execute(
            f"update durable.jobs set state = '{state}', owner = null, finished_at = {finished} where run_id = %s".encode(),
            (job_id,),
        )

    def left(self) -> int:
        row = self.sql.execute("select count(*) from durable.jobs where finished_at is null").fetchone()  # fmt: skip
        return row[0] if row else 0


@pytest.fixture
def hall(database_url: str) -> Iterator[Hall]:
    opened = Hall(database_url)
    yield opened
    opened.sql.close()


class Referee:
    """Counts what executes and what has started when, and knows what is allowed."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.executing: dict[str, tuple[str | None, bool]] = {}
        self.started: dict[str, deque[tuple[float, float]]] = defaultdict(deque)

    def saw(self, taken: list[tuple[str, str | None, bool, float]], now_s: float) -> None:
        for job_id, key, serial, weight in taken:
            assert job_id not in self.executing, "taken once"
            self.executing[job_id] = (key, serial)
            self._start("", self.given["rate_limit"], weight, now_s)
            if key is not None:
                self._start("=" + key, self.given["key_rate_limit"], weight, now_s)
        self._judge()

    def _start(self, meter: str, rate: dict[str, Any] | None, weight: float, now_s: float) -> None:
        if rate is None:
            return
        starts = self.started[meter]
        starts.append((now_s, min(weight, rate["limit"])))
        while starts[0][0] <= now_s - PERIOD_S:
            starts.popleft()
        used = sum(each for _, each in starts)
        # a bucket holds one period's worth, and is filled once more within a period
        assert used <= rate["limit"] * (1 if rate["kind"] == "window" else 2), (meter, rate, used)

    def _judge(self) -> None:
        by_key = Counter(key for key, _ in self.executing.values() if key is not None)
        most, most_of_key = self.given["global_limit"], self.given["key_limit"]
        assert most is None or len(self.executing) <= most
        assert most_of_key is None or all(n <= most_of_key for n in by_key.values())
        assert all(by_key[key] == 1 for key, serial in self.executing.values() if serial and key)


@LOOSE
@given(given_limits=limits, wanted=jobs, seed=st.integers(0, 999))
def test_no_limit_is_passed_and_every_job_runs(
    hall: Hall, given_limits: dict[str, Any], wanted: list[Any], seed: int
) -> None:
    hall.open(given_limits, wanted)
    steps, referee, now_s, ended = random.Random(seed), Referee(given_limits), 0.0, 0
    for _ in range(20 * len(wanted)):
        if ended == len(wanted):
            break
        taken = hall.claim(steps.randrange(2), steps.randint(1, 8))
        referee.saw(taken, now_s)
        for job_id in list(referee.executing):
            if steps.random() < 0.5:
                back = steps.random() < 0.2  # an attempt that is lost, and made again
                hall.end(job_id, "available" if back else "completed")
                del referee.executing[job_id]
                ended += not back
        if steps.random() < 0.3 or not (taken or referee.executing):
            by_s = steps.choice([1, 7, 31, 62])
            now_s += by_s
            hall.sql.execute("select durable.advance_clock(%s * interval '1 second')", (by_s,))
    assert (ended, hall.left()) == (len(wanted), 0), "nothing starves"


@LOOSE
@given(
    counts=st.dictionaries(st.sampled_from(KEYS), st.integers(1, 12), min_size=2),
    seed=st.integers(0, 999),
)
def test_keys_take_turns_whatever_each_has_waiting(
    hall: Hall, counts: dict[str, int], seed: int
) -> None:
    """Between two turns of a key each other key that waits has one: nobody's flood makes another wait for longer than a round."""
    steps = random.Random(seed)
    wanted = [(key, False, 0, 1) for key, count in counts.items() for _ in range(count)]
    steps.shuffle(wanted)
    hall.open(dict.fromkeys(("global_limit", "key_limit", "rate_limit", "key_rate_limit")), wanted)
    waiting, since = Counter(counts), dict.fromkeys(counts, 0)
    for turn in range(1, len(wanted) + 1):
        ((job_id, key, _, _),) = hall.claim(steps.randrange(2), 1)
        hall.end(job_id, "completed")
        assert key is not None
        waiting[key] -= 1
        since[key] = turn
        late = [k for k in counts if waiting[k] and turn - since[k] >= len(counts)]
        assert late == []


RECORD = """
create table if not exists most (what text primary key, n integer not null);
create or replace function record_most() returns trigger language plpgsql as $$
begin
    insert into most select w.what, w.n from (
        select 'all' as what, count(*)::int as n from durable.jobs where state = 'executing'
        union all select 'key ' || new.limit_key, count(*)::int from durable.jobs where state = 'executing' and limit_key = new.limit_key) w
     where w.what is not null
    on conflict (what) do update set n = greatest(most.n, excluded.n);
    return null;
end $$;
create or replace trigger record_most after update on durable.jobs for each row
    when (new.state = 'executing' and old.state <> 'executing') execute function record_most();
truncate most;
"""


@settings(LOOSE, max_examples=8)
@given(
    most=st.integers(1, 4), of_key=st.none() | st.integers(1, 2), wanted=jobs, seed=st.integers(0, 9)
)  # fmt: skip
def test_two_that_claim_at_the_same_moment_keep_to_the_limits(
    hall: Hall, most: int, of_key: int | None, wanted: list[Any], seed: int
) -> None:
    """Two connections at once; the database itself counts what executes in each claim."""
    hall.open({"global_limit": most, "key_limit": of_key, "rate_limit": None, "key_rate_limit": None}, wanted)  # fmt: skip
    hall.sql.execute(RECORD.encode())
    url, failures = hall.sql.info.dsn, []

    def work(worker: int) -> None:
        chance = random.Random(seed + worker)
        try:
            with psycopg.connect(url, autocommit=True) as mine:
                desk = Hall.__new__(Hall)
                desk.sql, desk.workers = mine, hall.workers
                for _ in range(40 * len(wanted)):
                    for job_id, *_ in desk.claim(worker, chance.randint(1, 5)):
                        desk.end(job_id, "completed")
                    if not desk.left():
                        return
            failures.append("jobs are left")
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    seen: dict[str, int] = dict(hall.sql.execute("select what, n from most").fetchall())
    assert seen.pop("all") <= most
    serial = {f"key {key}!" for key in KEYS}
    assert all(n == 1 for what, n in seen.items() if what in serial)
    assert of_key is None or all(n <= of_key for n in seen.values())
