"""Durable execution for Python on PostgreSQL alone.

Layout, from the bottom up; imports only ever point downwards:

    errors, payload, failure            errors; values and exceptions <-> JSON
    core/                               pure: history in, decision out
    definitions, signals, authoring,    what authors import: decorators, Signal, sleep, now, saga, ...
    activity_context, saga
    store/                              all SQL
    client_sync, client_async           start, signal, cancel, result
    cli/, embedded/, testing            entry points; the worker process is the package durable_worker

This file only says what is public.
"""

from durable.activity_context import ActivityInfo as ActivityInfo
from durable.activity_context import activity_info as activity_info
from durable.activity_context import heartbeat as heartbeat
from durable.authoring import WorkflowInfo as WorkflowInfo
from durable.authoring import actor as actor
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
from durable.core.futures import ActivityFuture as ActivityFuture
from durable.core.futures import DurableFuture as DurableFuture
from durable.core.policy import RetryPolicy as RetryPolicy
from durable.definitions import Activity as Activity
from durable.definitions import Workflow as Workflow
from durable.definitions import activity as activity
from durable.definitions import workflow as workflow
from durable.saga import Saga as Saga
from durable.saga import saga as saga
from durable.signals import Signal as Signal
