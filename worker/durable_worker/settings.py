"""What a worker can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_SLOTS = 100


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves. Times are in seconds.

    `queues` maps a queue's name to the number of attempts that may run at once here, `local_slots` is the same for local activities. `lease_s` is how long the worker may be silent before others take
    over what it holds (C2). `max_cached_runs` bounds the live coroutines kept (sticky cache, LRU). `notify` False gives and takes no hints (C4).
    Of transactional activities at most `transaction_connections` sync and as many async ones run at once, each with a connection; one that
    keeps its transaction open for `transaction_warning_s` is named in the log.
    `build` names the code that runs here; runs of pinned workflows stay with the build that took their first turn.
    `retention_gap_s` is the time between two rounds of pruning.
    `run_workflows` False makes a worker that only runs activities, `run_activities` False one that only runs workflows.
    """

    queues: dict[str, int] = field(default_factory=lambda: {"default": DEFAULT_SLOTS})
    local_slots: int = DEFAULT_SLOTS
    name: str = "worker"
    build: str | None = None
    lease_s: float = 15.0
    poll_s: float = 0.2
    poll_min_s: float = 0.004
    max_cached_runs: int = 10_000
    claim_limit: int = 200
    notify: bool = True
    eager: bool = True
    run_workflows: bool = True
    run_activities: bool = True
    shutdown_grace_s: float = 30.0
    block_warning_s: float = 2.0
    deadline_grace_s: float = 5.0
    transaction_connections: int = 10
    transaction_warning_s: float = 5.0
    retention_gap_s: float = 300.0
