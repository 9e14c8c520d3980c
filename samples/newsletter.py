"""A parent with a child for each reader, and a run that begins anew every issue: `durable-worker samples.newsletter`.

Each child is a run of its own: with an id that says whose it is, a history of its own, and retries of its own activities.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import durable
from durable import activity, workflow


@activity
async def post_letter(reader: str, issue: int) -> str:
    return f"issue {issue} to {reader}"


@workflow
async def deliver(reader: str, issue: int) -> str:
    return await post_letter(reader, issue)


@workflow
async def publish(readers: list[str], issue: int) -> list[str]:
    """A child that fails is a `ChildWorkflowError` here; `return_exceptions` keeps one bad address from stopping the issue."""
    sent = await asyncio.gather(
        *[deliver.options(id=f"issue-{issue}-{reader}")(reader, issue) for reader in readers],
        return_exceptions=True,
    )
    return [it if isinstance(it, str) else f"failed: {it}" for it in sent]


@workflow
async def run_newsletter(readers: list[str], issues: int, issue: int = 1) -> int:
    """One issue a week. Each begins with an empty history, so that it can go on for years; the id and the handle stay."""
    await publish.options(id=f"issue-{issue}")(readers, issue)
    if issue == issues:
        return issue
    await durable.sleep(timedelta(weeks=1))
    return run_newsletter.continue_as_new(readers, issues, issue + 1)
