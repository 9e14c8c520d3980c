"""Durable execution for Python on PostgreSQL alone.

Layout, from the bottom up; imports only ever point downwards:

    errors, payload, failure            errors; values and exceptions <-> JSON
    core/                               pure: history in, decision out
    definitions, signals, authoring,    what authors import: decorators, Signal, sleep, now, saga, ...
    activity_context, in_process, saga
    store/                              all SQL
    client_sync, client_async           start, signal, cancel, result
    cli/, embedded/, testing            entry points; the worker process is the package durable_worker

This file only says what is public. The clients and the embedded server load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from durable.activity_context import ActivityCancelledError as ActivityCancelledError
from durable.activity_context import ActivityInfo as ActivityInfo
from durable.activity_context import NotInActivity as NotInActivity
from durable.activity_context import activity_info as activity_info
from durable.activity_context import complete_elsewhere as complete_elsewhere
from durable.activity_context import heartbeat as heartbeat
from durable.activity_outcomes import Cancel as Cancel
from durable.activity_outcomes import Retry as Retry
from durable.activity_outcomes import Snooze as Snooze
from durable.attributes import Attribute as Attribute
from durable.attributes import attributes as attributes
from durable.attributes import set_attributes as set_attributes
from durable.attributes import set_details as set_details
from durable.authoring import WorkflowInfo as WorkflowInfo
from durable.authoring import actor as actor
from durable.authoring import checkpoint as checkpoint
from durable.authoring import continue_as_new as continue_as_new
from durable.authoring import gather as gather
from durable.authoring import in_workflow as in_workflow
from durable.authoring import info as info
from durable.authoring import now as now
from durable.authoring import random as random
from durable.authoring import shield as shield
from durable.authoring import sleep as sleep
from durable.authoring import time as time
from durable.authoring import uuid4 as uuid4
from durable.authoring import wait as wait
from durable.authoring import wait_until as wait_until
from durable.completion_errors import CompletionRefused as CompletionRefused
from durable.completion_errors import TransactionMisused as TransactionMisused
from durable.context import acting_as as acting_as
from durable.context import context_type as context_type
from durable.context import current_actor as current_actor
from durable.context import headers as headers
from durable.context import sender as sender
from durable.core.children import ChildFuture as ChildFuture
from durable.core.futures import ActivityFuture as ActivityFuture
from durable.core.futures import DurableFuture as DurableFuture
from durable.core.guard import unguarded as unguarded
from durable.core.interception import OutboundCall as OutboundCall
from durable.core.interception import WorkflowExecution as WorkflowExecution
from durable.core.interception import WorkflowInterceptor as WorkflowInterceptor
from durable.core.policy import RetryPolicy as RetryPolicy
from durable.core.schedule_times import Calendar as Calendar
from durable.dag_errors import DagFailed as DagFailed
from durable.dag_errors import InvalidDag as InvalidDag
from durable.dag_errors import NotHalted as NotHalted
from durable.dag_errors import StepRefused as StepRefused
from durable.definitions import Activity as Activity
from durable.definitions import Workflow as Workflow
from durable.definitions import activity as activity
from durable.definitions import workflow as workflow
from durable.encryption import Encryption as Encryption
from durable.errors import ActivityError as ActivityError
from durable.errors import ActivityTimeout as ActivityTimeout
from durable.errors import ActorRequired as ActorRequired
from durable.errors import BlockingCall as BlockingCall
from durable.errors import ChildWorkflowError as ChildWorkflowError
from durable.errors import DatabaseUnavailable as DatabaseUnavailable
from durable.errors import DurableError as DurableError
from durable.errors import EmbeddedPostgresError as EmbeddedPostgresError
from durable.errors import InternalError as InternalError
from durable.errors import InvalidOption as InvalidOption
from durable.errors import LeaseLost as LeaseLost
from durable.errors import LimitExceeded as LimitExceeded
from durable.errors import NewerSemantics as NewerSemantics
from durable.errors import NondeterminismError as NondeterminismError
from durable.errors import NonRetryable as NonRetryable
from durable.errors import NotInWorkflow as NotInWorkflow
from durable.errors import OperationRefused as OperationRefused
from durable.errors import PayloadError as PayloadError
from durable.errors import QueryFailed as QueryFailed
from durable.errors import QueryTimeout as QueryTimeout
from durable.errors import ReadOnlyViolation as ReadOnlyViolation
from durable.errors import RemoteError as RemoteError
from durable.errors import SagaFailed as SagaFailed
from durable.errors import ScheduleAlreadyExists as ScheduleAlreadyExists
from durable.errors import ScheduleChanged as ScheduleChanged
from durable.errors import ScheduleNotFound as ScheduleNotFound
from durable.errors import SchemaOutOfDate as SchemaOutOfDate
from durable.errors import UnknownActivity as UnknownActivity
from durable.errors import UnknownQuery as UnknownQuery
from durable.errors import UnknownQueue as UnknownQueue
from durable.errors import UnknownSignal as UnknownSignal
from durable.errors import UnknownUpdate as UnknownUpdate
from durable.errors import UnknownWorkflow as UnknownWorkflow
from durable.errors import UnsafeWorkflow as UnsafeWorkflow
from durable.errors import UpdateFailed as UpdateFailed
from durable.errors import UpdateRejected as UpdateRejected
from durable.errors import UpdateUnfinished as UpdateUnfinished
from durable.errors import WorkflowAlreadyExists as WorkflowAlreadyExists
from durable.errors import WorkflowCancelled as WorkflowCancelled
from durable.errors import WorkflowClosed as WorkflowClosed
from durable.errors import WorkflowFailed as WorkflowFailed
from durable.errors import WorkflowNotFound as WorkflowNotFound
from durable.errors import WorkflowTerminated as WorkflowTerminated
from durable.errors import WorkflowTimedOut as WorkflowTimedOut
from durable.handlers import Update as Update
from durable.handlers import current_update as current_update
from durable.handlers import handlers_finished as handlers_finished
from durable.handlers import query as query
from durable.handlers import update as update
from durable.in_process import local as local
from durable.interceptors import ActivityExecution as ActivityExecution
from durable.interceptors import ActivityInterceptor as ActivityInterceptor
from durable.interceptors import ClientInterceptor as ClientInterceptor
from durable.interceptors import ClientRequest as ClientRequest
from durable.interceptors import use_interceptors as use_interceptors
from durable.job_errors import BulkRefused as BulkRefused
from durable.job_errors import JobCancelled as JobCancelled
from durable.job_errors import JobNotFound as JobNotFound
from durable.job_errors import JobRefused as JobRefused
from durable.logs import logger as logger
from durable.patching import deprecate_patch as deprecate_patch
from durable.patching import patched as patched
from durable.payload_codecs import Compression as Compression
from durable.payload_codecs import PayloadCodec as PayloadCodec
from durable.payload_codecs import Payloads as Payloads
from durable.payload_codecs import PayloadStore as PayloadStore
from durable.payload_codecs import use_payloads as use_payloads
from durable.payload_stores import DirectoryStore as DirectoryStore
from durable.queue_limits import RateLimit as RateLimit
from durable.saga import Saga as Saga
from durable.saga import saga as saga
from durable.schedules import Schedule as Schedule
from durable.schedules import calendar as calendar
from durable.schedules import cron as cron
from durable.schedules import every as every
from durable.signal_errors import AmbiguousSignal as AmbiguousSignal
from durable.signals import Signal as Signal
from durable.unique import Unique as Unique

if TYPE_CHECKING:
    from durable import embedded as embedded
    from durable.client_async import AsyncClient as AsyncClient
    from durable.client_sync import Client as Client
    from durable.grouping import JobCall as JobCall
    from durable.messages import UpdateRequest as UpdateRequest
    from durable.store.payload_store import PostgresStore as PostgresStore

_LAZY = {
    "JobCall": "durable.grouping",
    "AsyncClient": "durable.client_async",
    "Client": "durable.client_sync",
    "PostgresStore": "durable.store.payload_store",
    "UpdateRequest": "durable.messages",
    "embedded": "durable.embedded",
}


def __getattr__(name: str) -> Any:
    """Import what needs psycopg when it is first asked for: authors' modules load without libpq, and faster."""
    if name not in _LAZY:
        raise AttributeError(f"module 'durable' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if name == "embedded" else getattr(module, name)
