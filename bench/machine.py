"""What the figures were measured on. A figure without this is worth nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from bench.server import Server

SETTINGS = (
    "fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size",
    "checkpoint_timeout", "autovacuum", "max_connections", "jit",
)  # fmt: skip


def describe(server: Server) -> dict[str, Any]:
    """The machine, the server, and how fast both are for the two things that matter: an fsync and plain Python."""
    with psycopg.connect(server.url) as connection:
        version = connection.execute("select version()").fetchone()
        settings = {name: _setting(connection, name) for name in SETTINGS}
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "postgres": version[0].split(" on ")[0] if version else "?",
        "postgres_here": server.postmaster is not None,
        "settings": settings,
        "filesystem": _filesystem(server.folder) if server.folder else None,
        "fdatasync_us": fdatasync_us(server.folder),
        "python_us": python_us(),
        "load": load(),
    }


def load() -> list[float]:
    """The load averages of 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def fdatasync_us(folder: Path | None, times: int = 60) -> dict[str, float]:
    """Writing 8 KiB and fdatasync in the server's data folder (else in the temporary folder): p50 and p95 in us."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(times):
            begin = time.perf_counter_ns()
            os.pwrite(file.fileno(), os.urandom(8192), 0)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter_ns() - begin) / 1e3)
    return percentiles(taken)


def python_us() -> float:
    """The best of many runs of a fixed piece of Python, in us: compares this machine's cores with others, and with itself on other days."""
    document = {
        "name": "add_one",
        "numbers": list(range(200)),
        "nested": {"a": [None, True, 1.5] * 20},
    }
    best_ns = min(_timed_ns(document) for _ in range(300))
    return round(best_ns / 1e3, 1)


def _timed_ns(document: dict[str, Any]) -> int:
    begin = time.perf_counter_ns()
    json.loads(json.dumps(document))
    return time.perf_counter_ns() - begin


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p95, and how many there are."""
    if not values:
        return {"p50": float("nan"), "p95": float("nan"), "n": 0}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 1), "p95": round(p95, 1), "n": len(ordered)}


def _setting(connection: psycopg.Connection[tuple[Any, ...]], name: str) -> str:
    row = connection.execute("select current_setting(%s, true)", (name,)).fetchone()
    return str(row[0]) if row else "?"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    return f"{facts.get('model name', platform.machine())} (family {facts.get('cpu family', '?')})"


def _filesystem(folder: Path) -> str:
    """The type of the file system below the folder; tmpfs makes every fsync free and the figures worthless."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "?"
    over = [(where, kind) for where, kind in mounts if folder.is_relative_to(where)]
    return max(over, key=lambda mount: len(mount[0]))[1] if over else "?"
