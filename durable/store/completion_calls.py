"""The client's operations with a completion token, each described once, as those of calls.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from durable.completion_errors import CompletionRefused
from durable.completion_tokens import ReadToken
from durable.ids import uuid7
from durable.store.calls import Call, Row, Sent
from durable.store.queries import load_queries

_SQL = load_queries("completion.sql")

EARLY = "early"


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the attempt ended: `payload` is JSON text, or `failure` a failure's document with the class names by which a policy may exclude it."""

    type: str
    payload: str | None = None
    failure: dict[str, Any] | None = None
    names: tuple[str, ...] = ()
    final: bool = False


def read_activity(token: ReadToken) -> Call[Sent[str | None]]:
    """The name of the activity that the token is for; None if there is none."""
    return Call(
        _SQL["read_activity"],
        token._asdict(),
        lambda rows: Sent(rows[0]["name"] if rows else None),
    )


class Settling:
    """One completion, to be sent until it is not too early any more. Raises CompletionRefused."""

    def __init__(self, token: ReadToken, settlement: Settlement, actor: str | None) -> None:
        failure = settlement.failure
        self._parameters = {
            **token._asdict(),
            "type": settlement.type,
            "payload": settlement.payload,
            "failure": None if failure is None else json.dumps(failure),
            "names": list(settlement.names),
            "final": settlement.final,
            "actor": actor,
            "command_id": str(uuid7()),
        }

    def call(self, *, patient: bool) -> Call[Sent[bool]]:
        """Whether it is done; False: too early (only if `patient`)."""

        def decode(rows: list[Row]) -> Sent[bool]:
            row = rows[0]
            if patient and row["verdict"] == EARLY:
                return Sent(False)
            if row["verdict"] != "accepted":
                raise CompletionRefused(row["verdict"], row["name"])
            return Sent(True, (row["hint"],) if row["hint"] else ())

        return Call(_SQL["settle_completion"], {**self._parameters, "patient": patient}, decode)


def heartbeat(token: ReadToken, details: str, *, patient: bool) -> Call[Sent[bool | None]]:
    """Whether the run has given the activity up; None: too early (only if `patient`). Raises CompletionRefused."""

    def decode(rows: list[Row]) -> Sent[bool | None]:
        row = rows[0]
        if row["verdict"] != "accepted" and not (patient and row["verdict"] == EARLY):
            raise CompletionRefused(row["verdict"], None)
        return Sent(row["cancel_requested"] if row["verdict"] == "accepted" else None)

    parameters = {**token._asdict(), "heartbeat": details, "patient": patient}
    return Call(_SQL["heartbeat_completion"], parameters, decode)
