"""The tables of `bench.queue`."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from bench.report import QUIET, header, number, ratio, table

__all__ = ["APART", "BARE", "BESIDE", "DURABLE", "FEATURES", "PGQUEUER", "PROCRASTINATE", "Figures", "Run", "everything", "header"]  # fmt: skip

DURABLE, PGQUEUER, PROCRASTINATE, BARE = "durable", "PgQueuer", "Procrastinate", "bare"
APART, BESIDE = "durable, apart", "durable beside"
"""Jobs from another client than the worker's own: through a hint and a claim, as from another process."""

FEATURES = ("unique", "global limit", "rate limit", "rate bucket")
"""What of ours is switched on, one at a time, to see what it costs."""


@dataclass(frozen=True, slots=True)
class Run:
    """One queue emptied. CPU is in microseconds a job; `foreign` is the share of the machine that others used meanwhile."""

    count: int
    jobs_s: float
    worker_us: float
    postgres_us: float
    foreign: float

    @classmethod
    def of(cls, count: int, spent: Mapping[str, float]) -> Self:
        """From the differences of bench.cpu.Usage."""
        capacity_s = max(spent["at_s"], 1e-9) * (os.cpu_count() or 1)
        ours_s = spent["workers"] + spent["postgres"]
        foreign_s = spent["machine"] + spent["stolen"] - ours_s
        return cls(
            count,
            count / spent["at_s"],
            spent["workers"] * 1e6 / count,
            spent["postgres"] * 1e6 / count,
            max(0.0, foreign_s / capacity_s),
        )

    @property
    def cpu_us(self) -> float:
        """Of everybody who worked on it."""
        return self.worker_us + self.postgres_us


@dataclass
class Figures:
    """Everything measured: jobs/s of enqueueing, runs by contender and (width, waiting), pick-ups in us, and for each feature what was left of the rate, in pairs."""

    one_by_one: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    bulk: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[str, dict[tuple[int, int], list[Run]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    pick_up_us: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def median(self, name: str, width: int, waiting: int) -> Run | None:
        """The run with the median of jobs/s."""
        runs = self.runs.get(name, {}).get((width, waiting))
        return sorted(runs, key=lambda run: run.jobs_s)[(len(runs) - 1) // 2] if runs else None

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        runs = [
            {"name": name, "width": width, "waiting": waiting, **asdict(run)}
            for name, cells in self.runs.items()
            for (width, waiting), repeats in cells.items()
            for run in repeats
        ]
        return {
            "one_by_one": self.one_by_one,
            "bulk": self.bulk,
            "runs": runs,
            "shares": self.shares,
            "pick_up_us": {name: _pick_up(us) for name, us in self.pick_up_us.items()},
            "goals": goals(self),
        }


def everything(figures: Figures, repeat: int) -> str:
    """All tables."""
    parts = [
        f"Jobs/s, medians of {repeat} rounds",
        _throughput(figures),
        "",
        _costs(figures),
        _quiet(figures),
        "",
        _enqueueing(figures),
    ]
    if figures.pick_up_us:
        parts += ["", _pick_ups(figures.pick_up_us)]
    parts += [
        f"{'met' if goal['met'] else 'MISSED':7} {goal['goal']}: {goal['value']:.3g}"
        for goal in goals(figures)
    ]
    return "\n".join(parts)


def _cells(figures: Figures) -> list[tuple[int, int]]:
    return sorted(
        {cell for cells in figures.runs.values() for cell in cells}, key=lambda c: c[::-1]
    )


def _throughput(figures: Figures) -> str:
    names = [name for name in figures.runs if " " not in name]
    head = ["K", "waiting", *names, *(f"x {name}" for name in names if name != DURABLE)]
    rows = []
    for width, waiting in _cells(figures):
        speeds = {name: _speed(figures, name, width, waiting) for name in names}
        others = [ratio(speeds.get(DURABLE), speeds[n]) for n in names if n != DURABLE]
        rows.append([str(width), f"{waiting:,}", *map(number, [*speeds.values(), *others])])
    return table(head, rows)


def _speed(figures: Figures, name: str, width: int, waiting: int) -> float | None:
    run = figures.median(name, width, waiting)
    return None if run is None else run.jobs_s


def _costs(figures: Figures) -> str:
    """Where the time of a job goes, how far repeats lay apart, and how quiet the machine was."""
    head = ["", "K", "waiting", "jobs/s", "worker us/job", "Postgres us/job", "all us/job", "max/min", "others' CPU"]  # fmt: skip
    rows = []
    for name, cells in figures.runs.items():
        for (width, waiting), repeats in cells.items():
            run = figures.median(name, width, waiting)
            assert run is not None
            speeds = [each.jobs_s for each in repeats]
            values = [
                run.jobs_s,
                run.worker_us,
                run.postgres_us,
                run.cpu_us,
                max(speeds) / min(speeds),
            ]
            rows.append(
                [name, str(width), f"{waiting:,}", *map(number, values), f"{run.foreign:.0%}"]
            )
    return table(head, rows)


def _quiet(figures: Figures) -> str:
    shown = [figures.median(name, *cell) for name, cells in figures.runs.items() for cell in cells]
    noisy = sum(run is not None and run.foreign > QUIET for run in shown)
    if not noisy:
        return f"quiet: others used at most {QUIET:.0%} of the machine in every run shown"
    return f"NOISY: others used more than {QUIET:.0%} of the machine in {noisy} of {len(shown)} runs shown; trust ratios a little and absolute figures not at all"


def _enqueueing(figures: Figures) -> str:
    head = ["enqueue, jobs/s", *figures.bulk]
    found = {"one by one": figures.one_by_one, "in bulk": figures.bulk}
    rows = [
        [what, *(number(statistics.median(by_name[name])) for name in figures.bulk)]
        for what, by_name in found.items()
    ]
    return table(head, rows)


def _pick_up(taken_us: Sequence[float]) -> dict[str, float]:
    ordered = sorted(taken_us)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return {"p50": statistics.median(ordered), "p99": p99, "n": len(ordered)}


def _pick_ups(pick_up_us: Mapping[str, Sequence[float]]) -> str:
    found = {name: _pick_up(us) for name, us in pick_up_us.items()}
    rows = [
        [
            name,
            number(v["p50"]),
            number(v["p99"]),
            str(v["n"]),
            number(ratio(v["p50"], found[BARE]["p50"])),
        ]
        for name, v in found.items()
    ]
    return table(["idle enqueue -> handler (us)", "p50", "p99", "n", "x bare (p50)"], rows)


def goals(figures: Figures) -> list[dict[str, Any]]:
    """The goals, and where we stand."""
    ours = _speed(figures, DURABLE, 64, 0)
    found: list[tuple[str, float | None, str, float]] = [
        (f"{times:g} x {name} at K=64", ratio(ours, _speed(figures, name, 64, 0)), ">=", times)
        for name, times in ((PGQUEUER, 1.5), (PROCRASTINATE, 10.0))
    ]
    deepest = max((waiting for _, waiting in _cells(figures)), default=0)
    if deepest:
        deep = ratio(_speed(figures, DURABLE, 64, deepest), ours)
        found.append((f"of the rate with {deepest:,} waiting", deep, ">=", 0.9))
    for feature, shares in figures.shares.items():
        found.append((f"of the rate with {feature}", statistics.median(shares), ">=", 0.8))
    if figures.bulk.get(DURABLE):
        bulk = statistics.median(figures.bulk[DURABLE])
        found.append(("bulk enqueue, jobs/s", bulk, ">=", 100_000))
    found += [
        (f"idle pick-up p50, ms ({name})", _pick_up(taken_us)["p50"] / 1e3, "<=", 2.0)
        for name in (DURABLE, APART)
        if (taken_us := figures.pick_up_us.get(name))
    ]
    return [
        {
            "goal": f"{goal} {sign} {limit:g}",
            "value": value,
            "met": value >= limit if sign == ">=" else value <= limit,
        }
        for goal, value, sign, limit in found
        if value is not None
    ]
