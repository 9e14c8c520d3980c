"""Activities that an operator has to mend, with values that are secret."""

from __future__ import annotations

from datetime import timedelta

from durable import ActivityError, RetryPolicy, activity, workflow
from tests.system.sealed_flows import Refused, whisper

QUICK = RetryPolicy(max_attempts=1, initial_interval=timedelta(milliseconds=1), jitter="none")


@activity(retry=QUICK, on_exhausted="pause")
def needs_another_word(word: str) -> str:
    if word.startswith("!"):
        raise Refused(word)
    return f"{word} taken"


@activity
def kept_for_later(word: str) -> str:
    return f"{word} kept"


@workflow
async def mended_in_secret(word: str) -> list[str]:
    said = [await needs_another_word(f"!{word}"), await needs_another_word(f"!{word}")]
    try:
        await needs_another_word(f"!{word}")
    except ActivityError as error:
        said.append(str(error.cause))
    return [*said, await whisper.receive()]
