"""The other ways to run an activity, with values that are secret."""

from __future__ import annotations

import os
from typing import Any

import psycopg

import durable
from durable import ActivityError, RetryPolicy, Signal, activity, activity_info, workflow
from tests.system.sealed_flows import Refused

go_on_with_ways = Signal("go_on_with_ways", str)


@activity
def echo_locally(word: str) -> str:
    return f"{word} echoed"


@activity(retry=RetryPolicy(max_attempts=1))
def refuse_locally(word: str) -> None:
    raise Refused(word)


@activity(transactional=True)
def echo_in_transaction(connection: psycopg.Connection[Any], word: str) -> str:
    connection.execute("select 1")
    return f"{word} echoed"


@activity(retry=RetryPolicy(max_attempts=1))
def ask_elsewhere(word: str) -> str:
    with psycopg.connect(os.environ["SYSTEM_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "insert into system.tokens (key, token) values (%s, %s)",
            (str(len(word)), activity_info().completion_token),
        )
    raise durable.complete_elsewhere()


def word_of(error: ActivityError) -> str:
    return error.cause.word if isinstance(error.cause, Refused) else "?"


@workflow
async def secret_ways(word: str) -> list[str]:
    said = [await durable.local(echo_locally)(word), await echo_in_transaction(word)]
    try:
        await durable.local(refuse_locally)(word)
    except ActivityError as error:
        said.append(word_of(error))
    said.append(await go_on_with_ways.receive())
    said.append(await ask_elsewhere(word))
    try:
        await ask_elsewhere(f"{word}!")
    except ActivityError as error:
        said.append(word_of(error))
    return said
