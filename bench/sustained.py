"""`--minutes`: does it stay as fast while history grows and autovacuum works?

Two columns tell what else changes meanwhile: full pages written to the log (many after each checkpoint, of which a new server has had none), and how long a
fixed piece of Python takes on this machine just then.
"""

from __future__ import annotations

from typing import Any

import psycopg

from bench import contenders, machine
from bench.contenders import ONE_PROCESS, Cell
from bench.report import number
from bench.server import Server

WINDOW_S = 30.0

_TABLES = """
    select relname, pg_total_relation_size(relid), n_live_tup, n_dead_tup, autovacuum_count
      from pg_stat_user_tables where schemaname = 'durable' and relname in ('history', 'jobs', 'runs')"""


_FULL_PAGES = "select wal_fpi::bigint from pg_stat_wal"


def run(server: Server, widths: list[int], minutes: float) -> dict[str, Any]:
    """Run each width for so long, print a line every 30 s, and return all of it."""
    found: dict[str, Any] = {}
    for width in widths:
        found[str(width)] = _run_width(server, width, max(2, round(minutes * 60 / WINDOW_S)))
    return {"sustained": found}


def _run_width(server: Server, width: int, count: int) -> dict[str, Any]:
    print(f"\nK={width}, {count} windows of {WINDOW_S:g} s, one process", flush=True)
    print(
        "  steps/s  worker us  Postgres us  batch  others  history (rows, MB)   jobs MB (dead)  runs MB (dead)  full pages  Python us  autovacuums"
    )
    windows: list[dict[str, Any]] = []
    with (
        server.database(f"sustained_{width}") as url,
        psycopg.connect(url, autocommit=True) as looking,
        contenders.durable(ONE_PROCESS, server, url) as contender,
    ):
        ((before,),) = looking.execute(_FULL_PAGES).fetchall()
        for cell in contender.windows(width, count, warm_s=3.0, window_s=WINDOW_S):
            tables = {row[0]: row[1:] for row in looking.execute(_TABLES).fetchall()}
            ((pages,),) = looking.execute(_FULL_PAGES).fetchall()
            python_us = machine.python_us()
            print(_line(cell, tables, pages - before, python_us), flush=True)
            windows.append(
                {
                    **cell.as_json(),
                    "tables": tables,
                    "full_pages": pages - before,
                    "python_us": python_us,
                }
            )
            before = pages
    speeds = [window["steps_s"] for window in windows]
    third = max(1, len(speeds) // 3)
    first, last = sum(speeds[:third]) / third, sum(speeds[-third:]) / third
    print(f"last third over first third: {last / first:.1%}")
    return {"windows": windows, "last_over_first": round(last / first, 4)}


def _line(cell: Cell, tables: dict[str, Any], full_pages: int, python_us: float) -> str:
    def size(name: str) -> str:
        return f"{tables[name][0] / 2**20:,.0f}"

    vacuums = " ".join(f"{name}:{values[3]}" for name, values in sorted(tables.items()))
    return (
        f"{cell.steps_s:>9,.0f}  {number(cell.worker_us):>9}  {number(cell.postgres_us):>11}  {number(cell.batch):>5}"
        f"  {cell.foreign:>6.0%}  {tables['history'][1]:>11,} {size('history'):>6}"
        f"  {size('jobs'):>6} ({tables['jobs'][2]:,})  {size('runs'):>6} ({tables['runs'][2]:,})"
        f"  {full_pages:>10,}  {python_us:>9}  {vacuums}"
    )
