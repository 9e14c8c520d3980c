"""CPU time of processes, read from /proc. Elsewhere than on Linux everything here answers 0."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """CPU seconds used so far, by whom; `machine` is everybody on it, `stolen` what the hypervisor gave to other machines."""

    at_s: float
    workers: float
    driver: float
    postgres: float
    machine: float
    stolen: float


def usage(workers: Iterable[int], driver: int | None, postmaster: int | None) -> Usage:
    """Read all clocks now. A `driver` that is a worker at the same time (DBOS, the floor) is given as a worker."""
    return Usage(
        time.monotonic(),
        sum(process_s(pid) for pid in workers),
        process_s(driver) if driver else 0.0,
        _tree_s(postmaster) if postmaster else 0.0,
        *_machine_s(),
    )


def process_s(pid: int) -> float:
    """CPU seconds of one process, user and system; 0 once it is gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def parent_of(pid: int) -> int | None:
    """The parent's process id."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _tree_s(pid: int) -> float:
    """A postmaster, its living children, and those it has reaped."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    own_s = sum(int(field) for field in fields[11:15]) / _TICKS
    return own_s + sum(process_s(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, so field 3 of proc(5) is index 0."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _machine_s() -> tuple[float, float]:
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0, 0.0
    user, nice, system, _idle, _iowait, irq, softirq, stolen = (int(field) for field in fields)
    return (user + nice + system + irq + softirq) / _TICKS, stolen / _TICKS
