"""The closed lists of causes have a text for each word; that the schema has the same words is shown in tests/system/test_endings.py."""

from durable.core.terminal_causes import (
    JOB_CAUSE_TEXTS,
    JOB_CAUSES,
    RUN_CAUSE_TEXTS,
    RUN_CAUSES,
)


def test_each_cause_is_explained() -> None:
    assert tuple(RUN_CAUSE_TEXTS) == RUN_CAUSES
    assert tuple(JOB_CAUSE_TEXTS) == JOB_CAUSES


def test_the_words_are_frozen() -> None:
    """S109. Programs match them: this list may grow, and no word of it may go."""
    assert RUN_CAUSES == (
        "completed", "completed_after_cancel_request", "failed", "step_failed", "failed_after_cancel_request", "timed_out", "cancelled",
        "cancelled_before_start", "terminated", "terminated_with_parent", "replaced", "continued", "reset",
    )  # fmt: skip
    assert JOB_CAUSES == (
        "completed", "completed_after_cancel_request", "cancelled", "cancelled_by_itself", "timed_out", "worker_lost", "non_retryable",
        "attempts_exhausted",
    )  # fmt: skip
