"""The web samples, served on loopback and sent real requests: order and job commit or vanish together, and the embedded worker runs the job."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from durable.client_sync import Client
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
APPS = {"fastapi": "samples.web_fastapi.app:app", "django": "samples.web_django.app:application"}
SETUP = {"fastapi": "", "django": "import samples.web_django.app as a; a.create_tables()"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=APPS)
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[httpx.Client]:
    """The application under uvicorn in a process of its own; its worker in it."""
    environment = {
        **os.environ,
        "DURABLE_DATABASE_URL": database_url,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'worker'}",
    }
    if setup := SETUP[request.param]:
        subprocess.run([sys.executable, "-c", setup], env=environment, check=True, cwd=ROOT)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        APPS[request.param],
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    server = subprocess.Popen(command, env=environment, cwd=ROOT)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        eventually(lambda: server.poll() is not None or _answers(client))
        yield client
    server.terminate()
    assert server.wait(30) in (0, -15)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/orders/0").status_code == 404
    except httpx.TransportError:
        return False


def test_an_order_is_confirmed_by_the_worker_of_the_application(site: httpx.Client) -> None:
    made = site.post("/orders", json={"customer": "ann", "cents": 700})
    assert made.status_code == 201
    where = f"/orders/{made.json()['id']}"
    eventually(lambda: "thank you, ann" in str(site.get(where).json()["confirmation"]))


def test_a_refused_request_leaves_neither_order_nor_job(
    site: httpx.Client, database_url: str
) -> None:
    refused = site.post("/orders", json={"customer": "bob", "cents": 1_000_000})
    assert refused.status_code == 409
    made = site.post("/orders", json={"customer": "ann", "cents": 7}).json()["id"]
    with Client(database_url) as client:
        assert [job.arguments["customer"] for job in client.jobs()] == ["ann"]
    with psycopg.connect(database_url) as connection:
        ((table,),) = connection.execute(
            "select tablename from pg_tables where tablename in ('web_orders', 'django_orders')"
        ).fetchall()
        rows = connection.execute(f"select id, customer from {table}".encode()).fetchall()
    assert rows == [(made, "ann")]
