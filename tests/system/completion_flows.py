"""Activities that somebody else completes. They leave their token in a table, as a real one would hand it to a service."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta
from typing import Any

import psycopg
from pydantic import BaseModel

import durable
from durable import ActivityError, RetryPolicy, activity, activity_info, workflow
from tests.system.flows import wait_at

TOKENS = "create table system.tokens (key text, attempt integer, token text, details jsonb)"


class Approval(BaseModel):
    by: str
    on: date


def hand_over(key: str) -> None:
    info = activity_info()
    with psycopg.connect(os.environ["SYSTEM_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "insert into system.tokens values (%s, %s, %s, %s::jsonb)",
            (
                key,
                info.attempt,
                info.completion_token,
                json.dumps(info.heartbeat_details),
            ),
        )


RETRIED = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1), jitter="none")


@activity(retry=RETRIED)
def approve(key: str) -> Approval:
    hand_over(key)
    raise durable.complete_elsewhere()


@activity(retry=RETRIED)
async def approve_async(key: str) -> Approval:
    hand_over(key)
    raise durable.complete_elsewhere()


@activity(retry=RETRIED)
def approve_slowly(key: str, gate: int) -> Approval:
    hand_over(key)
    wait_at(gate)
    raise durable.complete_elsewhere()


@activity(retry=RETRIED, timeout=timedelta(hours=1), heartbeat_timeout=timedelta(minutes=10))
def approve_in_time(key: str) -> Approval:
    hand_over(key)
    raise durable.complete_elsewhere()


@activity(retry=RETRIED, schedule_to_close=timedelta(hours=1))
def approve_in_all(key: str) -> Approval:
    hand_over(key)
    raise durable.complete_elsewhere()


@activity(retry=RetryPolicy(max_attempts=3, non_retryable=(PermissionError,)))
def approve_or_refuse(key: str) -> Approval:
    hand_over(key)
    raise durable.complete_elsewhere()


@activity(retry=RetryPolicy(max_attempts=1))
def forgets_its_token(key: str) -> None:
    raise durable.complete_elsewhere()


@activity(transactional=True, retry=RetryPolicy(max_attempts=1))
def takes_a_token_in_a_transaction(connection: psycopg.Connection[Any]) -> str:
    return activity_info().completion_token


@activity(retry=RetryPolicy(max_attempts=1))
def takes_a_token() -> str:
    return activity_info().completion_token


@workflow
async def asks_for_approval(name: str, key: str, gate: int = 0) -> str:
    match name:
        case "approve_async":
            approval = await approve_async(key)
        case "approve_slowly":
            approval = await approve_slowly(key, gate)
        case "approve_in_time":
            approval = await approve_in_time(key)
        case "approve_in_all":
            approval = await approve_in_all(key)
        case "approve_or_refuse":
            approval = await approve_or_refuse(key)
        case _:
            approval = await approve(key)
    return f"{approval.by} on {approval.on}"


@workflow
async def cannot_be_completed(how: str) -> str:
    try:
        if how == "forgets":
            await forgets_its_token("x")
        elif how == "transactional":
            await takes_a_token_in_a_transaction()
        else:
            await durable.local(takes_a_token)()
    except ActivityError as error:
        return str(error.cause)
    return "?"
