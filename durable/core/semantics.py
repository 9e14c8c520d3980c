"""The rules that runs were started under (C16).

The problem. A history is replayed for as long as its run lives, by whatever release is deployed then. A release that changes what the engine does with
the same events (an order, a default, a rounding) would replay every older run into something else.

What does not work. To change the rule for everybody: open runs part from their histories. To look for traces of the old behaviour in the
history: there are none where nothing has happened yet. To keep two engines.

The solution. Every run records the semantics version that was current when it started, in its row and in its first event. A change of
behaviour is a *rule* with a name, a line in `SINCE` that says from which version on it holds, and a branch at the one place that it changes:
`if run.follows("name"):`. A run keeps its version for ever; children and runs that continue as new inherit it, so that during a
deployment of this library no worker meets a rule that it does not know. Golden histories of each version prove it.

How to change the engine's behaviour: raise CURRENT (here and in `durable.semantics()` of the migrations), name the rule in SINCE, branch where it matters,
commit a golden history that shows it. Nothing is ever removed from SINCE.
"""

from __future__ import annotations

from durable.errors import InternalError, NewerSemantics

CURRENT = 1
"""The version that new runs are started with."""

SINCE: dict[str, int] = {}
"""Rule -> the first semantics version under which it holds. Version 1 is the beginning and has no rules to name."""


def holds(rule: str, version: int) -> bool:
    """Whether runs of this semantics version follow the rule."""
    since = SINCE.get(rule)
    if since is None:
        raise InternalError(f"{rule!r} is no rule of durable/core/semantics.py")
    return version >= since


def check_known(version: int) -> None:
    """Raises NewerSemantics for a version that only a newer release knows."""
    if version > CURRENT:
        raise NewerSemantics(version, CURRENT)
