"""Replaying exported histories in an author's tests: the deploy gate of `durable verify`, without a database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from durable import replays
from durable.definitions import Workflow
from durable.errors import InvalidOption
from durable.histories import RecordedHistory


def replay_history(
    workflow: Workflow[..., Any], history: RecordedHistory | str | Path | Mapping[str, Any]
) -> None:
    """Check that the workflow's code still does what a recorded run did; nothing is executed but workflow code.

    `history`: a file that `durable history ID --export FILE` has written (its path), the decoded JSON of one, or `handle.export()`. Another version
    of the workflow than the recorded one may be given, to see whether it could take the run over.

    Raises NondeterminismError (C13) with the difference, PayloadError when stored data does not fit the code or the file is no export,
    UnsafeWorkflow, and InvalidOption when the history is of another workflow.
    """
    given = _read(history)
    if given.workflow != workflow.name:
        raise InvalidOption(
            f"the history is one of workflow {given.workflow!r}, and {workflow.name!r} was given to replay it"
        )
    replays.replay(given, workflow).evict()


def _read(history: RecordedHistory | str | Path | Mapping[str, Any]) -> RecordedHistory:
    if isinstance(history, RecordedHistory):
        return history
    if isinstance(history, Mapping):
        return RecordedHistory.from_json(json.dumps(history))
    return RecordedHistory.load(history)
