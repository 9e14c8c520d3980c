"""`durable demo`: all orders of orders.json, a payment service that misbehaves, and workers that are killed in the middle.

The customers act in three waves; some time after the first and the second wave, while orders are under way everywhere, the worker that
holds most of them gets SIGKILL and a new one is hired. When every order has ended, the books are checked, and what is
printed is what the database says, not what this program remembers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from durable import Client, DurableError, WorkflowClosed, embedded
from durable.store.migrate import migrate

from . import cases, ledger, report, shop
from .crew import Crew, DemoFailed, environment, payment_service
from .model import Payment, payment_confirmed
from .report import Report
from .workflow import checkout

POLL_S = 0.1
WAVES = 3
LIST_PREFIX = "demo-"
ENVIRONMENT = {"SHOP_PAYMENT_TIMEOUT_S": "0.5"}
PACKAGE = str(__package__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo. 0: everything adds up; 1: it does not, or not all orders ended in time; 2: it could not run."""
    options = _parser().parse_args(argv)
    console = Console(stderr=options.json, highlight=False)
    try:
        outcome = _prepared(options, console)
    except (DurableError, DemoFailed) as error:
        Console(stderr=True, highlight=False).print(Text(f"durable demo: {error}", style="red"))
        return 2
    if options.json:
        print(json.dumps(outcome.as_json(), ensure_ascii=False, indent=2))
    else:
        report.show(outcome, console)
    return 0 if outcome.adds_up else 1


def _prepared(options: argparse.Namespace, console: Console) -> Report:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(options.folder))
        url = stack.enter_context(_database(options.database_url, folder))
        stack.enter_context(
            environment({**ENVIRONMENT, "DURABLE_DATABASE_URL": url, "SHOP_DATABASE_URL": url})
        )
        stack.callback(shop.close_idle_connections)
        return _run(options, url, folder, console)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="durable demo", description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep the database and the logs here (default: a temporary folder)",
    )
    parser.add_argument(
        "--database-url",
        default=os.environ.get("DURABLE_DATABASE_URL"),
        help="use this server instead of the embedded one (default: DURABLE_DATABASE_URL)",
    )
    parser.add_argument("--orders", type=int, help="only the first so many")
    parser.add_argument("--workers", type=int, default=2, help="worker processes at a time")
    parser.add_argument(
        "--kills", type=int, default=2, choices=range(WAVES), help="how many workers are killed"
    )
    parser.add_argument(
        "--lease-s", type=float, default=2.0, help="how long a silent worker keeps its runs"
    )
    parser.add_argument(
        "--payment-deadline-s", type=float, default=5.0, help="for those who never pay; else 3 days"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=120.0,
        help="give up when not all orders have ended by then",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    return parser


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    made = Path(tempfile.mkdtemp(prefix="durable-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _database(url: str | None, folder: Path) -> Iterator[str]:
    if url:
        yield url
        return
    with embedded.start(folder / "postgres") as server:
        yield server.url


def _run(options: argparse.Namespace, url: str, folder: Path, console: Console) -> Report:
    given = cases.load(options.orders, timedelta(seconds=options.payment_deadline_s))
    migrate(url)
    shop.create(url, given.items)
    books = folder / "payments.sqlite"
    books.unlink(missing_ok=True)
    with (
        Client(url) as client,
        payment_service(PACKAGE, folder) as service,
        environment({"SHOP_PAYMENT_URL": service}),
        Crew(PACKAGE, folder, options.lease_s) as crew,
    ):
        day = Day(client, crew, given.orders, options.timeout_s)
        day.clear_the_desk()
        for _ in range(options.workers):
            crew.hire()
        with day.progress(console):
            day.run(options.kills)
        return day.books()


class Day:
    """One run of the demo: the orders, their customers, and the killer."""

    def __init__(
        self, client: Client, crew: Crew, orders: Sequence[cases.Case], timeout_s: float
    ) -> None:
        self.client = client
        self.crew = crew
        self.cases = orders
        self.prefix = f"{LIST_PREFIX}{uuid4().hex[:6]}/"
        self.kills: list[report.Kill] = []
        self.began = report.database_now()
        self._deadline = time.monotonic() + timeout_s
        self._show: Callable[[], None] = lambda: None
        self._say: Callable[[str], None] = lambda _: None

    def workflow_id(self, case: cases.Case) -> str:
        return self.prefix + case.order.id

    def clear_the_desk(self) -> None:
        """End what an interrupted demo has left in this database: it would take goods off our shelves."""
        for workflow_id in report.open_runs(LIST_PREFIX):
            with contextlib.suppress(WorkflowClosed):
                self.client.handle(workflow_id).terminate("another demo starts")

    def run(self, kills: int) -> None:
        self.wait(lambda: report.workers_alive(self.crew.names, self.began) == len(self.crew.names))
        self.began = report.database_now()
        self._say(f"{len(self.cases)} orders, {len(self.crew.names)} workers")
        for case in self.cases:
            self.client.start(checkout, case.order, id=self.workflow_id(case))
        for number in range(WAVES):
            self.wave(self.cases[number::WAVES], kill=number < kills)
        self.wait(lambda: self.ended() == len(self.cases))

    def wave(self, wave: Sequence[cases.Case], *, kill: bool) -> None:
        """Some of the customers act; when a quarter of their orders has ended, a worker may be killed."""
        enough = self.ended() + len(wave) // 4
        for case in wave:
            self.act(case)
        if kill:
            self.wait(lambda: self.ended() >= enough)
            self.kill()

    def act(self, case: cases.Case) -> None:
        """What the customer does. Some are too late: their order has failed already."""
        handle = self.client.handle(self.workflow_id(case))
        with contextlib.suppress(WorkflowClosed):
            if case.pays_cents is not None:
                handle.signal(
                    payment_confirmed, Payment(amount=case.pays_cents), dedupe_key="payment"
                )
            if case.cancels:
                handle.cancel("the customer has changed their mind")

    def kill(self) -> None:
        """SIGKILL the worker that holds most runs, and hire another."""
        held = report.runs_held(self.prefix)
        name = max(self.crew.names, key=lambda name: len(held.get(name, ())))
        self.crew.kill(name)
        held = report.runs_held(
            self.prefix
        )  # again: those that it lost in the meantime were not taken over
        kill = report.Kill(name, report.database_now(), tuple(held.get(name, ())))
        self.kills.append(kill)
        hired = self.crew.hire()
        self._say(f"SIGKILL to {name}, which held {len(kill.runs)} open orders; {hired} starts")

    def ended(self) -> int:
        return sum(report.ends(self.prefix).values())

    def wait(self, reached: Callable[[], bool]) -> None:
        while not reached() and time.monotonic() < self._deadline:
            self._show()
            if gone := self.crew.deserters():
                log = self.crew.log_of(gone[0]).read_text(errors="replace")
                raise DemoFailed(f"{gone[0]} ended by itself; it says:\n{log[-4000:]}")
            time.sleep(POLL_S)
        self._show()

    @contextlib.contextmanager
    def progress(self, console: Console) -> Iterator[None]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("orders", total=len(self.cases))
            self._say = bar.console.print
            self._show = lambda: self._update(bar, task)
            yield

    def _update(self, bar: Progress, task: TaskID) -> None:
        ends = report.ends(self.prefix)
        words = "  ".join(f"{count} {status}" for status, count in sorted(ends.items()))
        bar.update(task, completed=sum(ends.values()), description=words or "orders")

    def books(self) -> Report:
        ends = report.run_ends(self.prefix)
        by_order = {
            case.order.id: ends.get(self.workflow_id(case), "missing") for case in self.cases
        }
        wrong = [
            f"{case.order.id} ({case.habit}): the run is {by_order[case.order.id]}, legal: {' or '.join(case.may_end)}"
            for case in self.cases
            if by_order[case.order.id] not in case.may_end
        ]
        wrong += ledger.violations([case.order for case in self.cases], by_order)
        return report.collect(self.prefix, self.began, self.kills, wrong)


if __name__ == "__main__":
    sys.exit(main())
