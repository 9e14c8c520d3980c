"""Interceptors: around clients, workflow code and activities, in a chain, in replay too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

import durable
from durable import (
    ActivityExecution,
    ActivityInterceptor,
    ClientInterceptor,
    ClientRequest,
    OutboundCall,
    WorkflowExecution,
    WorkflowInterceptor,
    use_interceptors,
)
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.errors import InvalidOption, WorkflowFailed
from tests.system import intercepted_flows as flows
from tests.system.conftest import Working

T = TypeVar("T")
F = TypeVar("F")
MODULES = ("tests.system.flows", "tests.system.intercepted_flows")


@pytest.fixture(autouse=True)
def none_afterwards() -> Iterator[None]:
    yield
    use_interceptors()


class Tenant(ClientInterceptor):
    def send(self, request: ClientRequest, next: Callable[[ClientRequest], T]) -> T:
        headers = {**(request.headers or {}), "tenant": "acme"}
        return next(replace(request, headers=headers, actor=request.actor or "robot"))


class Strict(ClientInterceptor):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []

    def send(self, request: ClientRequest, next: Callable[[ClientRequest], T]) -> T:
        self.seen.append((request.kind, request.name, request.id))
        if request.actor == "mallory":
            raise PermissionError("not you")
        return next(request)


class Wrapped(WorkflowInterceptor):
    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.begun: list[str] = []

    async def execute(
        self, call: WorkflowExecution, next: Callable[[WorkflowExecution], Awaitable[Any]]
    ) -> Any:
        self.begun.append(call.name)
        if call.name != "many_calls":
            return await next(call)
        return [self.mark, *await next(replace(call, args=(f"{call.args[0]}{self.mark}",)))]

    def start(self, call: OutboundCall, next: Callable[[OutboundCall], F]) -> F:
        return next(replace(call, args=tuple(f"{it}-{call.kind}" for it in call.args)))


class Timed(ActivityInterceptor):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    async def execute(
        self, call: ActivityExecution, next: Callable[[ActivityExecution], Awaitable[Any]]
    ) -> Any:
        value = await next(call)
        self.seen.append((call.name, value))
        return f"<{value}>"


@pytest.mark.parametrize("cached", [0, 100])
def test_all_three_are_around_a_whole_run(working: Working, client: Client, cached: int) -> None:
    strict, outer, inner, timed = Strict(), Wrapped("1"), Wrapped("2"), Timed()
    use_interceptors(client=[Tenant(), strict], workflow=[outer, inner], activity=[timed])
    with working(*MODULES, max_cached_runs=cached):
        handle = client.start(flows.many_calls, "Hi", id="x")
        handle.signal(flows.knock, "knock")
        assert handle.result(30) == [
            "1", "2",
            "<HI12-ACTIVITY-ACTIVITY>", "<hi12-activity-activity>", "<HI12-LOCAL-LOCAL>",
            "leaf Hi12-child-child", "knock", {"tenant": "acme"},
        ]  # fmt: skip
        assert handle.describe().actor == "robot"
    assert strict.seen == [("start", "many_calls", "x"), ("signal", "intercepted_knock", "x")]
    assert sorted(name for name, _ in timed.seen) == ["shouted", "shouted", "whispered"]
    assert set(inner.begun) == {"many_calls", "intercepted_leaf"}
    if not cached:
        assert inner.begun.count("many_calls") > 1  # in replay too


def test_a_plain_workflow_is_intercepted_alike(working: Working, client: Client) -> None:
    use_interceptors(workflow=[Wrapped("1")])
    with working(*MODULES):
        assert client.start(flows.plain_calls, "a").result(30) == "A-ACTIVITY"


def test_a_client_interceptor_may_refuse(client: Client) -> None:
    use_interceptors(client=[Strict()])
    with pytest.raises(PermissionError, match="not you"):
        client.start(flows.many_calls, "x", actor="mallory")
    with pytest.raises(PermissionError):
        client.enqueue(flows.shouted, "x", actor="mallory")
    handle = client.start(flows.many_calls, "x")
    with pytest.raises(PermissionError):
        handle.signal(flows.knock, "x", actor="mallory")
    assert handle.signals() == []


def test_standalone_jobs_are_intercepted(working: Working, client: Client) -> None:
    timed = Timed()
    use_interceptors(client=[Tenant()], activity=[timed])
    with working(*MODULES):
        assert client.enqueue(flows.whispered, "Job").result(30) == "<job>"
        job = client.enqueue(flows.about_context)
        with pytest.raises(durable.ActivityError):
            job.result(30)  # what interceptors return must fit the annotation
    assert timed.seen[0] == ("whispered", "job")


def test_an_interceptor_s_error_is_the_run_s(working: Working, client: Client) -> None:
    class Broken(WorkflowInterceptor):
        async def execute(
            self, call: WorkflowExecution, next: Callable[[WorkflowExecution], Awaitable[Any]]
        ) -> Any:
            await next(call)
            raise LookupError("no licence")

    use_interceptors(workflow=[Broken()])
    with working(*MODULES), pytest.raises(WorkflowFailed) as failed:
        client.start(flows.plain_calls, "a").result(30)
    assert isinstance(failed.value.cause, LookupError)


def test_the_asynchronous_client_takes_the_same_and_async_ones(database_url: str) -> None:
    asyncio.run(_with_the_asynchronous_client(database_url))


async def _with_the_asynchronous_client(database_url: str) -> None:
    handles: list[Any] = []

    class Watching(ClientInterceptor):
        def send(self, request: ClientRequest, next: Callable[[ClientRequest], T]) -> T:
            async def watched() -> Any:
                handles.append(await next(request))  # type: ignore[misc]
                return handles[-1]

            return watched()  # type: ignore[return-value]

    use_interceptors(client=[Watching(), Tenant()])
    async with AsyncClient(database_url) as client:
        handle = await client.start(flows.many_calls, "x")
        assert (await handle.describe()).headers == {"tenant": "acme"}
    assert handles == [handle]


def test_what_is_no_interceptor_is_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"client": [object()]},
        {"workflow": [Wrapped]},
        {"activity": [Strict()]},
    ]
    for given in wrong:
        with pytest.raises(InvalidOption, match="interceptor"):
            use_interceptors(**given)
