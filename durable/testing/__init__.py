"""What authors' own tests can use."""

from durable.histories import RecordedHistory as RecordedHistory
from durable.testing.histories import replay_history as replay_history
