"""The tables that people read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contenders import (
    DBOS_TASKS,
    DBOS_THREADS,
    EMBEDDED,
    FLOOR,
    LOCAL,
    ONE_PROCESS,
    TWO_PROCESSES,
    Cell,
    median_of,
    spread,
)

Cells = Mapping[str, Mapping[int, Sequence[Cell]]]

PROTOTYPE = {ONE_PROCESS: {1: 1_350, 16: 17_200, 64: 26_400, 256: 36_000, 1024: 36_900},
             TWO_PROCESSES: {1: 310, 16: 3_800, 64: 11_200, 256: 27_100, 1024: 36_800}}  # fmt: skip
QUIET = 0.1
"""The share of the machine that others may use before a figure is called noisy."""

PROTOTYPE_INSERT_US = 47.0
"""A bare INSERT and commit on the machine of the prototype, when the prototype was measured."""


def header(machine: Mapping[str, Any]) -> str:
    """What was measured on, in a few lines."""
    sync = machine["fdatasync_us"]
    settings = ", ".join(f"{name}={value}" for name, value in machine["settings"].items())
    where = "on this machine" if machine["postgres_here"] else "ELSEWHERE (its CPU is not seen)"
    lines = [
        f"machine   {machine['cores']} cores, {machine['cpu']}, {machine['memory_gib']} GiB, {machine['system']}",
        f"disk      {machine['filesystem'] or '?'}; 8 KiB write + fdatasync p50 {sync['p50']} us, p95 {sync['p95']} us",
        f"python    {machine['python']}, psycopg {machine['psycopg']}; fixed piece of Python {machine['python_us']} us",
        f"postgres  {machine['postgres']}, {where}",
        f"          {settings}",
        f"load      {machine['load']} before",
    ]
    if machine["filesystem"] == "tmpfs":
        lines.append(
            "WARNING   the data folder is in memory: every fsync is free, the figures are worthless"
        )
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the right."""
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    lines = [
        [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        for row in [head, *rows]
    ]
    return "\n".join(
        "  ".join(line) for line in [lines[0], ["-" * width for width in widths], *lines[1:]]
    )


def number(value: float | None) -> str:
    """Three digits that mean something; '-' for nothing."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def best_dbos(cells: Cells, width: int) -> tuple[Cell, str] | None:
    """The better of its two styles at this width."""
    found = [
        (median_of(cells[name][width]), name)
        for name in (DBOS_THREADS, DBOS_TASKS)
        if cells.get(name, {}).get(width)
    ]
    return max(found, key=lambda pair: pair[0].steps_s, default=None)


def throughput(cells: Cells, insert_us: float) -> str:
    """Steps/s side by side, with the ratios that survive a change of machine."""
    head = [
        "K", "(a) steps/s", "of floor", "x DBOS", "(b) steps/s", "of floor", "x DBOS", "(c) local()", "x (a)", "(d) embedded", "x DBOS", "floor", "batch", "DBOS", "style",
        "(a)/insert", "proto", "(b)/insert", "proto",
    ]  # fmt: skip
    widths = sorted({width for by_width in cells.values() for width in by_width})
    return table(head, [_row(cells, width, insert_us) for width in widths])


def _row(cells: Cells, width: int, insert_us: float) -> list[str]:
    speeds = {
        name: median_of(by_width[width]).steps_s
        for name, by_width in cells.items()
        if by_width.get(width)
    }
    floor, dbos = speeds.get(FLOOR), best_dbos(cells, width)
    row, normalised = [str(width)], []
    for name in (ONE_PROCESS, TWO_PROCESSES):
        speed = speeds.get(name)
        row += [
            number(speed),
            percent(speed, floor),
            number(ratio(speed, dbos and dbos[0].steps_s)),
        ]
        prototype = PROTOTYPE[name].get(width)
        normalised += [number(speed and speed * insert_us / 1e6)]
        normalised += [number(prototype and prototype * PROTOTYPE_INSERT_US / 1e6)]
    local = speeds.get(LOCAL)
    row += [number(local), number(ratio(local, speeds.get(ONE_PROCESS)))]
    embedded = speeds.get(EMBEDDED)
    row += [number(embedded), number(ratio(embedded, dbos and dbos[0].steps_s))]
    batch = (
        median_of(cells[ONE_PROCESS][width]).batch
        if cells.get(ONE_PROCESS, {}).get(width)
        else None
    )
    style = dbos[1].removeprefix("DBOS ") if dbos else "-"
    return [
        *row,
        number(floor),
        number(batch),
        number(dbos and dbos[0].steps_s),
        style,
        *normalised,
    ]


def cpu(cells: Cells) -> str:
    """Where the time of a step goes, how far repeats lay apart, and how quiet the machine was."""
    head = [
        "",
        "K",
        "worker us/step",
        "Postgres us/step",
        "driver us/step",
        "all us/step",
        "batch",
        "max/min",
        "others' CPU",
    ]
    rows = []
    for name, by_width in cells.items():
        for width, repeats in by_width.items():
            cell = median_of(repeats)
            spent = [cell.worker_us, cell.postgres_us, cell.driver_us]
            values = [*spent, sum(spent), cell.batch, spread(repeats)]
            rows.append([name, str(width), *map(number, values), f"{cell.foreign:.0%}"])
    return table(head, rows)


def quiet(cells: Cells) -> str:
    """Whether the figures may be kept: a median is no cure for a machine that was busy all the time."""
    kept = [median_of(repeats) for by_width in cells.values() for repeats in by_width.values()]
    noisy = sum(cell.foreign > QUIET for cell in kept)
    if not noisy:
        return f"quiet: others used at most {QUIET:.0%} of the machine in every window shown"
    return f"NOISY: others used more than {QUIET:.0%} of the machine in {noisy} of {len(kept)} windows shown; trust ratios a little and absolute figures not at all"


def latencies(latency: Mapping[str, Mapping[str, Any]]) -> str:
    """p50 and p95 in us, and as multiples of the bare INSERT of the same minute."""
    head = ["one idle run (us)", "", "p50", "p95", "n", "x INSERT (p50)"]
    rows = []
    for name, figures in latency.items():
        insert_us = figures.get("bare_insert_us", {}).get("p50")
        for figure, values in figures.items():
            times = ratio(values["p50"], insert_us)
            shown = [number(values["p50"]), number(values["p95"]), str(values["n"]), number(times)]
            rows.append([name, figure.removesuffix("_us"), *shown])
    return table(head, rows)


def goals(cells: Cells, latency: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The goals that are ratios or latencies, and where we stand."""
    ours = latency.get(ONE_PROCESS, {})
    found: list[tuple[str, float | None, str, float]] = [
        (f"{times} x DBOS at K={width}, {name}", _against_dbos(cells, name, width), ">=", times)
        for name, width, times in (
            (ONE_PROCESS, 64, 20.0),
            (ONE_PROCESS, 1, 3.0),
            (EMBEDDED, 1, 3.0),
        )
    ]
    if ours:
        step = ratio(ours["step_us"]["p50"], ours["bare_insert_us"]["p50"])
        found.append(("idle step p50, in bare INSERTs", step, "<=", 8.0))
        found.append(("start -> first activity p50, ms", ours["start_us"]["p50"] / 1e3, "<=", 10.0))
    return [
        {"goal": f"{goal} {sign} {limit:g}", "value": value, "met": _met(value, sign, limit)}
        for goal, value, sign, limit in found
        if value is not None
    ]


def _against_dbos(cells: Cells, name: str, width: int) -> float | None:
    dbos, ours = best_dbos(cells, width), cells.get(name, {}).get(width)
    return ratio(median_of(ours).steps_s, dbos[0].steps_s) if dbos and ours else None


def _met(value: float, sign: str, limit: float) -> bool:
    return value >= limit if sign == ">=" else value <= limit


def ratio(value: float | None, base: float | None) -> float | None:
    """value / base, if there are both."""
    return value / base if value is not None and base else None


def percent(value: float | None, base: float | None) -> str:
    """The same in percent."""
    found = ratio(value, base)
    return "-" if found is None else f"{found:.0%}"
