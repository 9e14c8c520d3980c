"""The errors about the other ways to run an activity; part of the tree in errors.py, and as those they say whose fault each one is."""

from __future__ import annotations

from durable.errors import DurableError

_WHY = {
    "late": "the attempt is over (timed out, failed, cancelled, or its run has closed); a later attempt has a token of its own",
    "duplicate": "the attempt has been completed or failed before",
    "forged": "no attempt has handed out this token",
    "early": "the attempt has not handed out a token",
}


class CompletionRefused(DurableError):
    """A completion token does not count (C5). The caller's: it came too late, twice, or is none of ours.

    `reason` is "late" (the attempt has timed out, failed or was cancelled, or its run has closed), "duplicate" (it has been completed), "forged", or "early" (the attempt
    has not handed out a token). `activity` is the activity's name, if its job is still there. The attempt to use it is kept as evidence.
    """

    def __init__(self, reason: str, activity: str | None) -> None:
        what = f"activity {activity!r}" if activity else "the activity"
        super().__init__(f"{what} was not completed: {_WHY[reason]}")
        self.reason = reason
        self.activity = activity


class TransactionMisused(DurableError):
    """A transactional activity ended its transaction, or closed its connection, which are the worker's.

    The author's fault; the message says what to write instead. It is not tried again. Unless the function committed by itself, nothing of what it wrote
    was kept.
    """
