"""What becomes of each slot: state and time in, decisions out.

A pass looks at one schedule. What is to be decided: slots that somebody asked for (a trigger, a backfill), slots that have waited for a run to end, and
the slots of the schedule's own times after the *cursor*, up to which every slot has its decision. Each gets one, with a reason where nothing is
started; the cursor moves to the last of them. The database writes decisions, starts and cursor in one transaction, so a slot is decided once, and
a pass that never happened is made up for by the next one: downtime is only a pass that comes late.

A decision depends on what runs when it is made, so the overlap policies speak of runs that are open at the time of the pass, and of those that the pass itself
starts. A run that a later slot of the same pass would stop at once is not started at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from durable.core.schedule_times import SECOND_US, Times, chained, jitter_us, slots

Overlap = Literal["skip", "buffer_one", "buffer_all", "cancel", "terminate", "allow"]
"""What happens when a slot is due while the run of an earlier one is open. "skip": nothing is started. "buffer_one": one start waits for the
end, further ones are skipped. "buffer_all": all starts wait, and are made one after another. "cancel": the open run is asked to stop, and the
new one starts when it has. "terminate": the open run is ended by force, and the new one starts at once. "allow": both run."""

Origin = Literal["time", "trigger", "backfill"]
Decision = Literal["started", "skipped", "buffered", "missed"]

OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
OPEN = "the run before it is open"
NO_MORE_WAIT = "the run before it is open, and no more starts may wait"
"""Why slots are skipped, as they are stored: explanations tell them apart."""
MOST_BUFFERED = 1_000
MOST_IN_A_PASS = 500
WATCH_US = 500_000
"""How soon a schedule is looked at again while something waits for a run's end, which nobody announces."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a schedule deals with overlap, downtime and failure. Times are microseconds."""

    overlap: Overlap = "skip"
    catch_up_us: int = 365 * 24 * 3600 * SECOND_US
    pause_on_failure: bool = False

    def to_body(self) -> dict[str, Any]:
        return {
            "overlap": self.overlap,
            "catch_up_us": self.catch_up_us,
            "pause_on_failure": self.pause_on_failure,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """A slot that waits for its decision, or, decided as buffered, for its turn."""

    slot_us: int
    origin: Origin = "time"
    overlap: Overlap | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A started slot whose run has ended since the last pass. `outcome` is the run's or job's status."""

    slot_us: int
    outcome: str

    @property
    def failed(self) -> bool:
        return self.outcome in ("failed", "terminated", "discarded")


@dataclass(frozen=True, slots=True)
class State:
    """What the database knows of a schedule. Slots up to `passed_over_us` went by while it was paused. `before`: the times that held until
    they were changed, each with its end.
    """

    cursor_us: int
    passed_over_us: int = 0
    paused: bool = False
    open: tuple[int, ...] = ()
    ended: tuple[Ended, ...] = ()
    asked: tuple[Asked, ...] = ()
    buffered: tuple[Asked, ...] = ()
    before: tuple[tuple[Times, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one slot."""

    slot_us: int
    origin: Origin
    decision: Decision
    reason: str | None = None
    overlap: Overlap | None = None


@dataclass(slots=True)
class Pass:
    """All that one pass has decided. `stops` are open slots whose runs are to be cancelled or terminated."""

    cursor_us: int
    next_us: int | None = None
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    stops: dict[int, Literal["cancel", "terminate"]] = field(default_factory=dict)
    pause_note: str | None = None


def decide(key: str, times: Times, policy: Policy, state: State, now_us: int) -> Pass:
    """The decisions of one pass at `now_us`; `key` is the schedule's id, by which jitter is drawn."""
    return _Pass(key, times, policy, state, now_us).run()


class _Pass:
    def __init__(self, key: str, times: Times, policy: Policy, state: State, now_us: int) -> None:
        self._key, self._times, self._policy, self._now = key, times, policy, now_us
        self._state = state
        self._open = set(state.open)
        self._waiting = {each.slot_us: each for each in state.buffered}
        self._given = Pass(state.cursor_us)

    def run(self) -> Pass:
        self._pause_on_failure()
        self._next_in_line()
        for asked in self._state.asked:
            self._rule(asked, asked.slot_us)
        self._own_times()
        self._look_again()
        return self._given

    @property
    def _paused(self) -> bool:
        return self._state.paused or self._given.pause_note is not None

    def _pause_on_failure(self) -> None:
        failed = [each for each in self._state.ended if each.failed]
        if failed and self._policy.pause_on_failure and not self._state.paused:
            self._given.pause_note = f"paused because the run of a slot {failed[-1].outcome}"

    def _next_in_line(self) -> None:
        """A start that has waited goes first, the oldest of them; one at a time."""
        if self._waiting and not self._open and not self._paused:
            oldest = self._waiting.pop(min(self._waiting))
            self._start(oldest, "waited for the run before it")

    def _own_times(self) -> None:
        for slot, due in self._due():
            self._given.cursor_us = slot
            self._rule(Asked(slot), due)

    def _rule(self, asked: Asked, due: int) -> None:
        """A slot of the schedule's own times may be missed or pass by; what somebody asked for is asked for."""
        if asked.origin != "time":
            self._judge(asked)
        elif self._paused or asked.slot_us <= self._state.passed_over_us:
            self._put(asked, "skipped", "the schedule was paused")
        elif self._now - due > self._policy.catch_up_us:
            self._put(asked, "missed", "it came due longer ago than the catch-up window")
        else:
            self._judge(asked)

    def _due(self) -> Iterator[tuple[int, int]]:
        """The slots that have come due, with when they did. Leaves when the next one will be."""
        following = chained(self._state.before, self._times, self._state.cursor_us)
        slot = next(following, None)
        for _ in range(MOST_IN_A_PASS):
            self._leave_behind(slot)
            if slot is None:
                return
            after = next(following, None)
            due = slot + jitter_us(self._times, self._key, slot, after)
            if due > self._now:
                self._given.next_us = due
                return
            yield slot, due
            slot = after
        self._given.next_us = self._now

    def _leave_behind(self, following: int | None) -> None:
        """The cursor passes the end of times that held before, once all their slots are decided."""
        for _, until in self._state.before:
            if following is None or following > until:
                self._given.cursor_us = max(self._given.cursor_us, until)

    def _look_again(self) -> None:
        watching = self._waiting or (self._policy.pause_on_failure and self._open)
        if watching and not (self._paused and not self._open):
            soon = self._now + WATCH_US
            self._given.next_us = min(self._given.next_us or soon, soon)
        if len(self._state.asked) >= MOST_IN_A_PASS:  # there may be more
            self._given.next_us = self._now

    # -- one slot --------------------------------------------------------------------------------------------------

    def _judge(self, asked: Asked) -> None:
        overlap = asked.overlap or self._policy.overlap
        busy = bool(self._open or self._waiting)
        if overlap == "allow" or not busy:
            self._start(asked)
        elif overlap == "skip":
            self._put(asked, "skipped", OPEN)
        elif overlap in ("cancel", "terminate"):
            self._take_over(asked, overlap)
        elif len(self._waiting) >= (1 if overlap == "buffer_one" else MOST_BUFFERED):
            self._put(asked, "skipped", NO_MORE_WAIT)
        else:
            self._wait(asked)

    def _take_over(self, asked: Asked, how: Literal["cancel", "terminate"]) -> None:
        for slot, waiting in list(self._waiting.items()):
            self._put(waiting, "skipped", "a later slot took its place")
            del self._waiting[slot]
        for slot in sorted(self._open):
            started = self._given.verdicts.get(slot)
            if started is not None:  # by this very pass: it need not begin
                self._given.verdicts[slot] = replace(
                    started, decision="skipped", reason="a later slot took its place"
                )
                self._open.discard(slot)
            elif how == "terminate":
                self._given.stops[slot] = "terminate"
                self._open.discard(slot)
            else:
                self._given.stops.setdefault(slot, "cancel")
        if self._open:
            self._wait(asked)
        else:
            self._start(asked)

    def _start(self, asked: Asked, reason: str | None = None) -> None:
        self._put(asked, "started", reason)
        self._open.add(asked.slot_us)

    def _wait(self, asked: Asked) -> None:
        self._put(asked, "buffered", "it starts when the run before it has ended")
        self._waiting[asked.slot_us] = asked

    def _put(self, asked: Asked, decision: Decision, reason: str | None) -> None:
        self._given.verdicts[asked.slot_us] = Verdict(
            asked.slot_us, asked.origin, decision, reason, asked.overlap
        )


def undecided(times: Times, after_us: int, until_us: int, most: int) -> list[int]:
    """The slots of (after, until], at most `most` + 1 of them: for a backfill, and for what a change of the times leaves behind."""
    return list(_until(slots(times, after_us), until_us, most))


def _until(found: Iterable[int], until_us: int, most: int) -> Iterator[int]:
    for count, slot in enumerate(found):
        if slot > until_us or count > most:
            return
        yield slot
