"""The slots of each queue, and how much to claim ahead of them.

A worker that claims only what it has slots for idles for a round trip after each batch. So while jobs end quickly it claims as many more as will have
ended by the time the next claim can answer, measured, and holds them until slots are free. How many slots there are says nothing about that number: a single one
whose jobs take 50 us ends two hundred meanwhile. Where jobs take long it is nought: nothing is held that another worker could run, and a job of a higher
priority, a pause or a limit is late by a few milliseconds. What is held in vain all the same (a quick job was followed by a slow one) goes back after HOLD_S;
and there is a most, because what is held when a process is killed has lost an attempt.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from durable.store.engine import ClaimedJob

HOLD_S = 0.05
AGED_EVERY = 8
AGED_GAP_S = 0.1
_SMOOTHING = 0.4
_GAP_S = 0.004
_MOST = 512


class _Queue:
    """One queue as this worker sees it. `ended` counts the attempts that ended since `looked_at`; `per_s` is their smoothed rate."""

    __slots__ = (
        "backlogged", "configured", "ended", "free", "goal", "held", "held_since", "looked_at", "per_s", "slots", "special",
    )  # fmt: skip

    def __init__(self, slots: int) -> None:
        self.configured = slots
        self.slots = slots
        self.special = False
        self.free = slots
        self.backlogged = False
        self.held: deque[ClaimedJob] = deque()
        self.held_since = 0.0
        self.goal = 0
        self.ended = 0
        self.per_s = 0.0
        self.looked_at = time.monotonic()

    def ahead(self, answer_s: float) -> int:
        """How many to hold beyond the free slots: what ends while one claim is under way, the one before is used up, and the loop turns."""
        now = time.monotonic()
        elapsed_s = now - self.looked_at
        if elapsed_s >= _GAP_S / 2:
            self.per_s += (self.ended / elapsed_s - self.per_s) * _SMOOTHING
            self.ended, self.looked_at = 0, now
        self.goal = min(int(self.per_s * (2 * answer_s + _GAP_S)), _MOST)
        return self.goal


class Slots:
    """Counts slots; holds what was claimed ahead. `freed` is called when there may be reason to claim."""

    def __init__(self, queues: Mapping[str, int], freed: Callable[[], None]) -> None:
        self._queues = {name: _Queue(slots) for name, slots in queues.items()}
        self._freed = freed
        self._answer_s = 0.002
        self._claims = 0
        self._aged_at = 0.0
        self.any_special = False

    def take_for_eager(self, queue: str) -> bool:
        """Take a slot for what is scheduled here just now; not while others wait for it."""
        found = self._queues.get(queue)
        if found is None or found.special or found.backlogged or found.free <= 0:
            return False
        found.free -= 1
        return True

    def take(self, job: ClaimedJob) -> bool:
        """Take a slot for a claimed job, or hold the job until one is free."""
        queue = self._queues[job.queue]
        if queue.free > 0:
            queue.free -= 1
            return True
        if not queue.held:
            queue.held_since = time.monotonic()
        queue.held.append(job)
        return False

    def give_back(self, name: str) -> ClaimedJob | None:
        """An attempt has ended: hand its slot to a job that is held, or free it."""
        queue = self._queues[name]
        queue.ended += 1
        if queue.held and queue.free >= 0:  # below: there are fewer slots than before
            job = queue.held.popleft()
            queue.held_since = time.monotonic()
            if (
                len(queue.held) <= queue.ended
            ):  # a claim would be answered about when the rest is used up
                self._freed()
            return job
        queue.free += 1
        if queue.free > 0 and (queue.free == 1 or queue.backlogged):
            self._freed()
        return None

    def wanted(self) -> dict[str, int]:
        """How many jobs to claim, by queue.

        A queue without a free slot may have a backlog that nobody can see: until a claim comes back short, what is scheduled here waits its turn like
        everything else, or local runs would take each slot as it is freed and the rest of the queue would starve.
        """
        found = {}
        for name, queue in self._queues.items():
            queue.backlogged = queue.backlogged or queue.free <= 0
            ahead = queue.ahead(self._answer_s) if queue.backlogged and queue.slots else 0
            if (count := queue.free + ahead - len(queue.held)) > 0:
                found[name] = count
        return found

    def obey(self, rules: Mapping[str, tuple[bool, int | None]]) -> None:
        """Take up what the queues' rows say: whether there are limits, and how many slots there are (None: as the worker was started)."""
        for name, queue in self._queues.items():
            special, slots = rules.get(name, (False, None))
            queue.special = special
            wanted = queue.configured if slots is None else slots
            queue.free += wanted - queue.slots
            queue.slots = wanted
        self.any_special = any(queue.special for queue in self._queues.values())

    def aged(self) -> bool:
        """Whether this claim shall think of those that have waited longest: one in eight while there is a backlog, ten in a second at most."""
        if not any(queue.backlogged for queue in self._queues.values()):
            return False
        self._claims += 1
        now = time.monotonic()
        if self._claims % AGED_EVERY or now < self._aged_at:
            return False
        self._aged_at = now + AGED_GAP_S
        return True

    def answered(self, wanted: Mapping[str, int], got: Mapping[str, int], took_s: float) -> None:
        """A claim came back: a queue that gave less than asked has no backlog."""
        self._answer_s += (min(took_s, 0.1) - self._answer_s) * _SMOOTHING
        for name, count in wanted.items():
            self._queues[name].backlogged = got.get(name, 0) >= count

    def holds(self) -> bool:
        """Whether anything is claimed and waits for a slot."""
        return any(queue.held for queue in self._queues.values())

    def held(self) -> Iterator[ClaimedJob]:
        """What is claimed and waits for a slot."""
        for queue in self._queues.values():
            yield from queue.held

    def release(self, *, everything: bool = False) -> list[ClaimedJob]:
        """Stop holding what has waited in vain (or everything), and return it: nothing is claimed ahead until jobs end quickly again."""
        found: list[ClaimedJob] = []
        now = time.monotonic()
        for queue in self._queues.values():
            if queue.held and (everything or now - queue.held_since > HOLD_S):
                found += queue.held
                queue.held.clear()
                queue.per_s = 0.0
        return found

    def forget(self, run_id: str, seq: int) -> ClaimedJob | None:
        """Stop holding one job, and return it if it was held."""
        for queue in self._queues.values():
            for job in queue.held:
                if job.run_id == run_id and job.seq == seq:
                    queue.held.remove(job)
                    return job
        return None
