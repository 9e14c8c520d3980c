"""What a client may raise about signals, besides the errors of errors.py."""

from __future__ import annotations

from collections.abc import Sequence

from durable.errors import DurableError


class AmbiguousSignal(DurableError):
    """A signal for the one workflow that a filter means, and the filter means several: it was delivered to none, and noted with each (C11).
    The caller's: send it to one of `workflow_ids`, or say more in the filter.
    """

    code = "ambiguous"

    def __init__(self, signal: str, workflow_ids: Sequence[str]) -> None:
        shown = ", ".join(workflow_ids[:5]) + (", ..." if len(workflow_ids) > 5 else "")
        super().__init__(
            f"signal {signal!r} may be meant for any of {len(workflow_ids)} workflows ({shown}), so none was told; send it to one of them"
        )
        self.workflow_ids = tuple(workflow_ids)
        self.next_steps = tuple(f"durable signal {each} {signal} JSON" for each in workflow_ids)
