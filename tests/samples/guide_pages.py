"""Programs around what the pages of docs/guide show: a line `#: n` stands for the n-th Python block of the page, as it is there.

The names are those of the pages, and the registry is one per process: each program runs in a process of its own.
"""

from __future__ import annotations

CONTEXT = """
import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta
import durable
from durable import Client, Signal, activity, workflow
from durable.testing.environment import _working

@dataclass
class Order:
    id: str

approval, audited, timed = Signal("approval", bool), [], []
order, user, request_id, key, url = Order("o-1"), "ann", "r-7", bytes(32), URL

def audit(actor, request):
    audited.append((actor, request))

def current_tenant():
    return "acme"

@contextlib.contextmanager
def timer(name):
    yield
    timed.append(name)

@workflow
async def checkout(order: Order) -> list[str]:
    await charge(order)
    #: 1
    return [by, durable.headers()["tenant"]]

#: 2
#: 3
#: 4
client = Client(url)
#: 0
(run,) = client.list(workflow="checkout")
client.handle(run.workflow_id).signal(approval, True, actor="bob")
with _working(url, {"poll_s": 0.05}):
    assert client.handle(run.workflow_id).result(30) == ["bob", "acme"]
assert audited == [("ann", "r-7")]
assert timed == ["charge"]
first = client.handle(run.workflow_id).history()[0]
with Client(url, payloads=durable.Payloads([])) as keyless:
    assert "encrypted with key '2026-01'" in str(keyless.handle(run.workflow_id).history()[0])
#: 5
large = client.start(checkout, Order("x" * 300_000))
assert client.handle(large.workflow_id).history()[0].payload is not None
"""

IDENTITY = """
import asyncio
from dataclasses import dataclass
from datetime import timedelta
import durable
from durable import Client, activity, workflow

@dataclass
class Order:
    total: int

order, client = Order(12), Client(URL)

@activity
def reserve(order: Order) -> None: ...

@workflow
async def bounded(order: Order) -> str:
    #: 1
    return "in time"

#: 0
#: 2
from durable.testing.environment import _working
with _working(URL, {"poll_s": 0.05}):
    assert client.start(bounded, order).result(30) == "in time"
    (run,) = client.list(workflow="checkout")
    client.handle(run.workflow_id).result(30)
found = (
#: 3
)
assert [it.workflow_id for it in found] == [run.workflow_id]
assert found[0].attributes == {"customer": "acme", "amount": 12, "urgent": True}
"""

JOBS = """
import threading
from datetime import timedelta
from durable import Client, JobCall, Retry, Snooze, Unique, activity
from durable.testing import environment
from durable.testing.environment import _working
from first import send_email

client, Page = Client(URL), str
addresses, pages, book, url, readiness = ["ann", "bob"], ["p-1", "p-2"], "b", "u", iter([False, True])

def ready(day):
    return next(readiness)

def load(day):
    return len(day)

class search_engine:
    async def bulk_index(pages):
        return [*pages[:-1], None]

#: 2
@activity
def sync_customer(customer: int) -> None: ...
@activity
def render_page(book: str, page: int) -> None: ...
@activity
def bind_book(book: str) -> str: return "bound"
@activity
def tell_editor(book: str) -> None: ...
@activity
def fetch(url: str) -> str: return url
@activity
def parse(url: str) -> str: return url
@activity
def publish(url: str) -> str: return "published"

#: 1
assert done.created == 2
#: 3
assert len(client.jobs(activity="index_pages")) == 2
sync = client.enqueue(sync_customer, 7, unique=Unique(fields=("customer",)))
#: 5
assert job.conflict and job.job_id == sync.job_id
report = client.enqueue(import_report, "monday")
with _working(URL, {"poll_s": 0.05, "queues": {"default": 400, "mail": 20, "index": 200}}):
    #: 6
    assert group.describe().completed == 300
    #: 7
    assert chain.result(timeout=60) == "published"
    until = threading.Event()
    for _ in range(600):
        states = sorted(it.state for it in client.jobs(activity="index_pages"))
        if states == ["completed", "retryable"] and report.describe().snoozes:
            break
        until.wait(0.05)
    assert states == ["completed", "retryable"]
    assert report.describe().snoozes == 1
job_id = client.enqueue(fetch, "late", delay=3600).job_id
#: 4
assert job_id not in [it.job_id for it in client.jobs()]
"""

WAYS = """
import ast
import threading
import psycopg
from durable import Client
from durable.testing.environment import _working

with psycopg.connect(URL, autocommit=True) as sql:
    sql.execute("create table if not exists accounts (name text primary key, cents int not null)")
    sql.execute("insert into accounts values ('ada', 10), ('bob', 0) on conflict (name) do update set cents = excluded.cents")

tokens = {}
asked = threading.Semaphore(0)

def order_scan(document, callback_token):
    tokens[document] = callback_token
    asked.release()

#: 0
#: 1
#: 2
client = Client(URL)
with _working(URL, {"poll_s": 0.05}):
    assert client.start(quote, ["tea", "salt"]).result(30) == 700
    client.start(pay, "ada", "bob", 4).result(30)
    with psycopg.connect(URL) as sql:
        assert sql.execute("select cents from accounts order by name").fetchall() == [(6,), (4,)]
    block = ast.parse(BLOCKS[3])
    assert len(block.body) == 3  # three answers: each to a document of its own
    for number, statement in enumerate(block.body):
        client.start(archive, str(number), id=f"archive-{number}")
        assert asked.acquire(timeout=30)
        token = tokens[str(number)]
        exec(compile(ast.Module([statement], []), "ways-to-run-an-activity.md", "exec"))
    assert client.handle("archive-0").result(30) == 12
"""

QUEUES = """
from durable import Client, activity

@activity
def update_account(account: str, amount: int) -> None: ...

#: 0
assert (reason.code, reason.message) == ("no_worker", "no live worker serves queue 'mail'")
client = Client(URL)
#: 1
(keyed,) = client.jobs(activity="update_account")
assert client.queue("mail").describe().global_limit == 10
"""

GRAPHS = """
from durable import Client, activity, workflow
from durable.dag import Dag

@activity
def fetch() -> None: ...

@workflow
async def checkout() -> None:
    await fetch()

dag = Dag("sync").add("fetch", fetch)
Client(URL).start(checkout, id="o-1")
#: 0
assert Path("o-1.svg").read_text().startswith("<svg")
"""

OPERATIONS = """
from durable import Client, RetryPolicy, activity, workflow
#: 0
run = Client(URL).start(checkout, 10)
assert run.describe().workflow == "checkout"
"""

TELEMETRY = """
#: 0
import logging
from durable import Client, workflow
from durable.testing.environment import _working
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
#: 1
with _working(URL, {"poll_s": 0.05}):
    Client(URL).start(checkout, "o-1").result(30)
provider.shutdown()
"""

SHOP = """
from datetime import timedelta
from durable import Client, activity, workflow
import durable

@activity
def send_email(to: str, subject: str) -> str:
    return f"sent {subject!r} to {to}"

@activity
def charge_card(cents: int) -> None: ...

def sign_up(address):
    with Client("postgresql://nobody@127.0.0.1:1/none") as client:
        client.enqueue(send_email, address, "Hi")

order = "o-1"

@workflow
async def checkout(order: str) -> str:
    await durable.sleep(timedelta(days=3))
    return "reminded"
"""

EVIDENCE = """
from dataclasses import dataclass
import durable
from durable import Client, JobCall, RetryPolicy, Signal, activity, workflow
from durable.testing.environment import _working

@dataclass
class Order:
    id: str

@dataclass
class Payment:
    amount: int

payment_confirmed, told, client = Signal("payment_confirmed", Payment), [], Client(URL)

@workflow
async def checkout(order: Order) -> str:
    if order.id != "o-3":
        await payment_confirmed.receive()
    return order.id

for each in ("o-1", "o-2"):
    client.start(checkout, Order(each), id=each, attributes={"order": "o-17"})
#: 0
assert {it.status for it in client.handle("o-1").evidence()} == {"ambiguous"}
try:
    client.schedule_handle("nightly").pause()
except durable.ScheduleNotFound:
    pass
#: 1
assert it.next_steps == ("durable schedule list",)
#: 2
assert client.handle("o-1").describe().cause == "terminated"
assert {it.recovery_id for it in client.commands(accepted=True, recovery_id=recovery_id)} == {recovery_id}
#: 3
with _working(URL, {"poll_s": 0.05}):
    assert client.handle("o-3").result(30) == "o-3"
    (job,) = client.jobs(activity="tell_the_shop")
    client.job(job.job_id).result(30)
assert told == [("o-3", "completed", "completed")]
"""

DAGS = """
import json
import customers
from crawling import dag
from durable import Client
from durable.dag import Dag

with Client() as client:
    print(client.start(dag).result(timeout=60)["merge"]["result"])
    stored = Dag.from_yaml(open("stored.yaml").read())
    print(client.start(stored).result(timeout=60)["remind"]["result"][0])
"""
