"""The worker process of `durable`: claims runs and jobs, activates the core, commits in groups, runs activities."""

from durable_worker.settings import WorkerSettings
from durable_worker.worker import Worker

__all__ = ["Worker", "WorkerSettings"]
