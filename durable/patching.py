"""Changing the code of workflows that have open runs, without a new version of them (C13).

A change goes through three deployments. First `if durable.patched("id"): new() else: old()`. When no open run is from before that:
`durable.deprecate_patch("id")` and the new code alone. When no open run is from before that either: the new code alone. See
docs/guide/versioning.md for how to find out.
"""

from __future__ import annotations

from durable.core.loop import current
from durable.core.names import checked_name
from durable.core.run import Run
from durable.errors import NotInWorkflow


def patched(id: str) -> bool:
    """Whether the calling run has the change of this name: True takes the new branch, False the old one.

    The first call in a run decides, and the answer stands for the whole run, in loops too. True leaves a mark in the history
    (PatchRecorded); in replay only that mark counts, so a run that passed this place with the old code stays with the old branch.
    An id names one change in one place: 1 to 200 printable characters. Raises NotInWorkflow outside a workflow, InvalidOption for an impossible id.
    """
    run = _run("patched()")
    return run.patched(checked_name("the patch's id", id))


def deprecate_patch(id: str) -> None:
    """Say that only the new branch of `patched(id)` is left. Right for histories with the mark, and for those of code that no longer has the patch.

    Raises as `patched` does.
    """
    run = _run("deprecate_patch()")
    run.patched(checked_name("the patch's id", id), deprecated=True)


def _run(call: str) -> Run:
    run = current()
    if run is None:
        raise NotInWorkflow(
            f"durable.{call} works inside a workflow only, and no workflow is calling"
        )
    return run
