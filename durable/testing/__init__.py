"""What authors' own tests can use: jobs in memory, a database whose time can be skipped, recorded histories."""

from durable.histories import RecordedHistory as RecordedHistory
from durable.recorded_jobs import RecordedJob as RecordedJob
from durable.recorded_jobs import Recorder as Recorder
from durable.testing.environment import Environment as Environment
from durable.testing.environment import environment as environment
from durable.testing.histories import replay_history as replay_history
from durable.testing.jobs import all_enqueued as all_enqueued
from durable.testing.jobs import assert_enqueued as assert_enqueued
from durable.testing.jobs import inline as inline
from durable.testing.jobs import manual as manual
from durable.testing.jobs import perform as perform
from durable.testing.jobs import refute_enqueued as refute_enqueued
