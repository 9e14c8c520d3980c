"""Somebody else's payment service, as bad as they come: `python -m samples.checkout.payment_service --ledger FILE`.

It fails on purpose, by a rule that depends on the order's id alone: an answer 503, a connection dropped before or after the
money has moved, an answer that comes too late. What a client cannot see from outside is the point: after a dropped connection the card may
have been charged. It honours `Idempotency-Key`, so a client that repeats itself with the same key is charged once; a
client that makes up a new key is charged twice, and the ledger shows it.

    POST /charges {"order_id", "card", "amount_cents"} -> 200 {"charge_id", "amount_cents"}
                                                          402 declined, 409 the order has been refunded before
    POST /refunds {"order_id"}                         -> 200 {"refunded_cents"}; later charges of the order are refused
    GET  /ledger                                       -> 200 {"charges": [...], "faults": {...}}

The ledger is a SQLite file, written before the answer: what was charged stays charged when the service is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

DECLINED_CARD = "4000-0000-0000-0002"
FAULTS: tuple[tuple[str, ...], ...] = (
    # what happens to the first requests of one order; those after them are served well
    (),
    (),
    ("503",),
    ("dropped before",),
    ("dropped after",),
    ("too late",),
    ("503", "dropped after"),
    ("dropped before", "503", "too late"),
)

SCHEMA = """
pragma journal_mode = wal;
create table if not exists charges (
    idempotency_key text primary key, charge_id text not null, order_id text not null, amount_cents integer not null,
    state text not null check (state in ('captured', 'refunded')));
create table if not exists refunds (order_id text primary key, refunded_cents integer not null);
"""

Answer = tuple[int, dict[str, Any]]


def faults_of(order_id: str) -> tuple[str, ...]:
    return FAULTS[hashlib.sha256(order_id.encode()).digest()[0] % len(FAULTS)]


class Ledger:
    """Charges and refunds in a SQLite file. Every method is one transaction."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._db.executescript(SCHEMA)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                yield self._db
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")

    def charge(self, key: str, order_id: str, card: str, amount_cents: int) -> Answer:
        with self._transaction() as db:
            known = db.execute(
                "select charge_id, amount_cents from charges where idempotency_key = ?", (key,)
            ).fetchone()
            if known:
                return 200, {"charge_id": known[0], "amount_cents": known[1]}
            if db.execute("select 1 from refunds where order_id = ?", (order_id,)).fetchone():
                return 409, {"error": f"{order_id} has been refunded"}
            if card == DECLINED_CARD:
                return 402, {"error": "the card was declined"}
            number = db.execute("select count(*) + 1 from charges").fetchone()[0]
            charge_id = f"ch-{number:06}"
            db.execute(
                "insert into charges values (?, ?, ?, ?, 'captured')",
                (key, charge_id, order_id, amount_cents),
            )
            return 200, {"charge_id": charge_id, "amount_cents": amount_cents}

    def refund(self, order_id: str) -> Answer:
        with self._transaction() as db:
            known = db.execute(
                "select refunded_cents from refunds where order_id = ?", (order_id,)
            ).fetchone()
            if known:
                return 200, {"refunded_cents": known[0]}
            total = "select coalesce(sum(amount_cents), 0) from charges where order_id = ?"
            cents = db.execute(total, (order_id,)).fetchone()[0]
            db.execute("update charges set state = 'refunded' where order_id = ?", (order_id,))
            db.execute("insert into refunds values (?, ?)", (order_id, cents))
            return 200, {"refunded_cents": cents}

    def charges(self) -> list[dict[str, Any]]:
        with self._transaction() as db:
            rows = db.execute("select * from charges order by charge_id")
            names = [column[0] for column in rows.description]
            return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._db.close()


class PaymentService(ThreadingHTTPServer):
    """`port` 0 takes a free one; `stall_s` is how late a late answer is. Use it as a context manager, or run `main`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, ledger: Path, *, port: int = 0, stall_s: float = 2.0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.ledger = Ledger(ledger)
        self.stall_s = stall_s
        self.faults: Counter[str] = Counter()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._counting = threading.Lock()
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self, path: str, order_id: str) -> str:
        """What goes wrong with this request, or nothing ('')."""
        plan = faults_of(order_id)
        with self._counting:
            number = self._requests[path, order_id]
            self._requests[path, order_id] += 1
            fault = plan[number] if number < len(plan) else ""
            if fault:
                self.faults[fault] += 1
        return fault

    def stall(self) -> None:
        self._stopped.wait(self.stall_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is nothing to print a traceback about: clients of a stalling service do."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.02,), name="payment service"
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.ledger.close()


class Handler(BaseHTTPRequestHandler):
    @property
    def service(self) -> PaymentService:
        assert isinstance(self.server, PaymentService)
        return self.server

    def do_GET(self) -> None:
        if self.path == "/ledger":
            self._answer(
                200, {"charges": self.service.ledger.charges(), "faults": dict(self.service.faults)}
            )
        else:
            self._answer(404, {"error": "GET /ledger, POST /charges, POST /refunds"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        works: dict[str, Callable[[], Answer]] = {
            "/charges": lambda: self.service.ledger.charge(key, **body),
            "/refunds": lambda: self.service.ledger.refund(**body),
        }
        self._misbehave(self.service.next_fault(self.path, body["order_id"]), works[self.path])

    def _misbehave(self, fault: str, work: Callable[[], Answer]) -> None:
        if fault == "503":
            self._answer(503, {"error": "come back later"})
        elif fault == "dropped before":
            self.close_connection = True
        elif fault == "dropped after":
            work()
            self.close_connection = True
        else:
            answer = work()
            if fault == "too late":
                self.service.stall()
            self._answer(*answer)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the ledger is the log."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until stdin closes, so that the service does not outlive whoever started it; the first line says where it is."""
    parser = argparse.ArgumentParser(description="a payment service that fails on purpose")
    parser.add_argument(
        "--ledger", type=Path, required=True, help="the SQLite file of charges and refunds"
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--stall-s", type=float, default=2.0, help="how late a late answer comes")
    options = parser.parse_args(argv)
    with PaymentService(options.ledger, port=options.port, stall_s=options.stall_s) as service:
        print(service.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt, EOFError):
            while True:
                input()


if __name__ == "__main__":
    main()
