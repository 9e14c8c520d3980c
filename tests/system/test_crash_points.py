"""The worker is killed with SIGKILL at every commit boundary of the checkout, and another one completes the order (C3).

A clean traced run says which boundaries there are. Then, for each of them, a fresh order in a fresh database is begun by a worker that
dies exactly there; its lease is let lapse; another worker takes over. The shop's tables and the payment service are shared: at
the end their books must add up for all the orders together, whatever happened to the workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable.client_sync import Client
from durable.handles_sync import Handle
from samples.checkout import Line, Order, Payment, cases, checkout, ledger, payment_confirmed, shop
from samples.checkout.payment_service import DECLINED_CARD, PaymentService, faults_of
from tests import postgres
from tests.system import background
from tests.system.invariants import assert_sound
from tests.system.processes import Fleet, WorkerProcess
from tests.waiting import eventually

MODULES = ("samples.checkout.workflow", "samples.checkout.activities")
QUEUES = ("--queue", "default=10", "--queue", "payments=10")
TOTAL_CENTS = 1_175
SIDE_BY_SIDE = 6
DECLARE_DEAD = "update durable.workers set lease_until = durable.now() - interval '1 s' where name = 'victim'"


@dataclass(frozen=True)
class Story:
    """What happens to an order, and how its run ends."""

    name: str
    card: str
    pays: bool
    ends: str
    faults: tuple[str, ...] = ()  # of the payment service, at the first requests of each kind

    def order_id(self, name: str) -> str:
        """An id that the payment service treats as the story wants it."""
        ids = (f"{self.name}-{name}-{number}" for number in count())
        return next(order_id for order_id in ids if faults_of(order_id) == self.faults)


PAID = Story("paid", "4242-4242-4242-4242", pays=True, ends="completed", faults=("503",))
DECLINED = Story("declined", DECLINED_CARD, pays=True, ends="failed")
UNPAID = Story("unpaid", "4242-4242-4242-4242", pays=False, ends="failed")


class Shop:
    """One shop and one payment service for many databases of runs."""

    def __init__(self, url: str, template: str, fleet: Fleet, service: PaymentService, folder: Path) -> None:
        self.url = url
        self._template = template
        self.fleet = fleet
        self.folder = folder
        self.env = {
            "SHOP_DATABASE_URL": url,
            "SHOP_PAYMENT_URL": service.url,
            "SHOP_PAYMENT_TIMEOUT_S": "0.5",
        }
        self.orders: list[Order] = []
        self.ends: dict[str, str] = {}

    @contextlib.contextmanager
    def order(self, story: Story, name: str) -> Iterator[tuple[str, Handle[Any]]]:
        """A database with the one order in it, not begun; yields its URL and the run's handle. Afterwards the run must have ended right."""
        order = Order(
            id=story.order_id(name),
            customer="Ada",
            card=story.card,
            lines=(Line(sku="cup-01", quantity=1),),
            total_cents=TOTAL_CENTS,
            payment_deadline=timedelta(days=3) if story.pays else timedelta(milliseconds=100),
        )
        with postgres.copied_database(self.url, self._template) as url, Client(url) as client:
            handle = client.start(checkout, order, id=order.id)
            if story.pays:
                handle.signal(payment_confirmed, Payment(amount=TOTAL_CENTS))
            yield url, handle
            self.orders.append(order)
            self.ends[order.id] = handle.describe().status
            with psycopg.connect(url, autocommit=True) as sql:
                assert_sound(sql)
            assert handle.describe().status == story.ends

    def trace(self, story: Story) -> list[str]:
        """The boundaries that the story crosses when nothing happens, in order."""
        points = self.folder / f"{story.name}.trace"
        with self.order(story, "traced") as (url, handle):
            worker = self._hire(url, "traced", {"DURABLE_TRACE_POINTS": str(points)})
            eventually(lambda: ended(handle), 60.0, what="the traced run has ended")
            worker.kill()
        return points.read_text().split()

    def crash(self, story: Story, point: str) -> bool:
        """Whether the worker died there; the order is completed by another one either way."""
        with self.order(story, point) as (url, handle), psycopg.connect(url, autocommit=True) as sql:
            victim = self._hire(url, "victim", {"DURABLE_CRASH_AT": point})
            eventually(lambda: victim.ended() or ended(handle), 60.0, what=f"{point} is reached")
            died = victim.ended()
            if not died:
                victim.kill()
            sql.execute(DECLARE_DEAD)
            with background.working(url, *MODULES, queues={"default": 10, "payments": 10}):
                eventually(lambda: ended(handle), 60.0, what=f"the run has ended after a crash at {point}")
        return died

    def _hire(self, url: str, name: str, env: dict[str, str]) -> WorkerProcess:
        options = ("--name", name, *QUEUES)
        return self.fleet.hire(url, *MODULES, lease_s=10.0, options=options, env={**self.env, **env})


def ended(handle: Handle[Any]) -> bool:
    return handle.describe().status != "running"


@pytest.fixture
def shop_of_many(
    database_url: str, postgres_url: str, template_database: str, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    shop.create(database_url, cases.load().items)
    with PaymentService(tmp_path / "payments.sqlite", stall_s=1.0) as service:
        made = Shop(database_url, template_database, fleet, service, tmp_path)
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        yield made
        assert ledger.violations(made.orders, made.ends) == []
        shop.close_idle_connections()


def new_points(points: Sequence[str], known: Sequence[str]) -> list[str]:
    """The boundaries to die at: those beyond the common beginning of the two stories; polls that find nothing count twice at most."""
    common = next((n for n, (a, b) in enumerate(zip(points, known, strict=False)) if a != b), len(known))
    chosen = points[common:]
    return [point for point in chosen if not point.startswith("stage.after") or int(point.rpartition(":")[2]) <= 2]


def test_killed_at_every_commit_boundary_the_checkout_is_completed_by_another_worker(shop_of_many: Shop) -> None:
    """C3: the paid order; the declined card (refund, then release: also between the two); the order nobody pays."""
    known: list[str] = []
    plan: list[tuple[Story, str]] = []
    for story in (PAID, DECLINED, UNPAID):
        points = shop_of_many.trace(story)
        plan += [(story, point) for point in new_points(points, known)]
        known = known or points
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        died = list(pool.map(lambda it: shop_of_many.crash(*it), plan))
    survived = [f"{story.name} {point}" for (story, point), dead in zip(plan, died, strict=True) if not dead]
    assert len(plan) > 40
    assert len(survived) <= len(plan) // 10, survived  # after the last commit the order has ended, and nobody waits for the death


def test_a_worker_that_dies_is_taken_over_within_its_lease(shop_of_many: Shop) -> None:
    """C2: nobody helps here: the heir is there already, and the lease of one second lapses by itself."""
    with shop_of_many.order(PAID, "by-itself") as (url, handle):
        options = ("--name", "victim", *QUEUES)
        env = {**shop_of_many.env, "DURABLE_CRASH_AT": "commit.after:3"}
        victim = shop_of_many.fleet.hire(url, *MODULES, lease_s=1.0, options=options, env=env)
        eventually(victim.ended)
        shop_of_many.fleet.hire(url, *MODULES, lease_s=1.0, options=QUEUES, env=shop_of_many.env)
        eventually(lambda: ended(handle))
