"""`durable.logger`: a logger for workflow and activity code that is silent in replay and knows whose line it is (C17)."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from durable.activity_context import running_attempt
from durable.core.loop import current


class DurableLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the fields workflow_id, run_id and workflow (in a workflow), or workflow_id, run_id, activity and attempt (in an activity) to each record, for
    formatters and JSON logs. Says nothing while a run is replayed. Outside both it is the plain logger.

    A line of a turn that was lost (the worker died before its commit) is said again by whoever takes the turn anew.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        run = current()
        return (run is None or not run.replaying) and super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            super().log(level, msg, *args, **kwargs)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**_fields(), **(kwargs.get("extra") or {})}
        return msg, kwargs


def _fields() -> dict[str, Any]:
    run = current()
    if run is not None:
        return {
            "workflow_id": run.workflow_id,
            "run_id": str(run.run_id),
            "workflow": run.definition.name,
        }
    attempt = running_attempt()
    if attempt is None:
        return {}
    info = attempt.info
    return {
        "workflow_id": info.workflow_id,
        "run_id": None if info.run_id is None else str(info.run_id),
        "activity": info.name,
        "attempt": info.attempt,
    }


logger = DurableLogger(logging.getLogger("durable.app"))
