"""An activity that is finished from outside, by somebody with a token: `durable-worker samples.signed_contract`.

The activity sends the token out and ends; its slot is free, and no worker holds anything. Days later a web hook, a script or a person gives the outcome:

    durable complete @token.txt '"signed by Ada"'
"""

from __future__ import annotations

from datetime import timedelta

import durable
from durable import ActivityError, activity, workflow

tokens: dict[str, str] = {}
"""Stands for the mail to the signer: in it is a link, and in the link the token."""


@activity(timeout=timedelta(days=14), retry=durable.RetryPolicy(max_attempts=1))
def ask_for_signature(signer: str, contract: str) -> str:
    """Where a real one sends the contract, with the token in the link."""
    tokens[f"{signer}, {contract}"] = durable.activity_info().completion_token
    raise durable.complete_elsewhere()


@workflow
async def close_deal(signer: str, contract: str) -> str:
    try:
        return await ask_for_signature(signer, contract)
    except (ActivityError, TimeoutError) as error:
        return f"no deal: {error}"
