"""Activities that hang, are told to stop, or wait in vain; beyond those of tests.system.flows."""

from __future__ import annotations

from datetime import timedelta

from durable import RetryPolicy, activity, activity_info, workflow
from tests.system.flows import leave_note, step, wait_at, wrote


@activity(retry=RetryPolicy(initial_interval=timedelta(hours=1), max_interval=timedelta(hours=1)))
def fails_with_jitter() -> None:
    wrote("fails_with_jitter")
    raise ValueError("again")


@activity(
    queue="narrow",
    timeout=timedelta(seconds=0.3),
    retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=10)),
)
def hangs_at_first(gate: int) -> int:
    """The first attempt blocks its thread beyond the timeout."""
    attempt = activity_info().attempt
    wrote("hangs_at_first")
    if attempt == 1:
        wait_at(gate)
        leave_note("the zombie went on")
    return attempt


@workflow
async def waits_for_jitter() -> None:
    await fails_with_jitter()


@workflow
async def outlives_a_hung_thread(gate: int) -> int:
    return await hangs_at_first(gate)


@workflow
async def waits_in_a_queue() -> str:
    return await step.options(queue="nobody")("never")
