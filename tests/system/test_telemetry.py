"""Spans, figures and log lines (C17): they hang together, they are few, and replay is silent. With the SDK's in-memory exporters."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import durable
from durable import telemetry
from durable.client_async import AsyncClient
from durable.client_sync import Client
from durable.errors import WorkflowFailed
from tests.system import telemetry_flows as flows
from tests.system.conftest import Working
from tests.waiting import eventually

MODULES = ("tests.system.flows", "tests.system.telemetry_flows")


class Seen:
    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader])

    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def names(self) -> list[str]:
        return [span.name for span in self.spans()]

    def points(self) -> list[tuple[str, dict[str, Any], Any]]:
        data = self._reader.get_metrics_data()
        return [
            (metric.name, dict(point.attributes or {}), point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    def count(self, name: str, **labels: str) -> int:
        return sum(
            point.value
            for found, given, point in self.points()
            if found == name and labels.items() <= given.items()
        )


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    telemetry.instrument(seen.tracers, seen.meters)
    yield seen
    telemetry.uninstrument()
    seen.meters.shutdown()


def test_one_trace_from_the_client_to_what_an_activity_starts(
    working: Working, client: Client, seen: Seen
) -> None:
    with working(*MODULES):
        with seen.tracers.get_tracer("app").start_as_current_span("request"):
            handle = client.start(flows.observed, 2, id="o")
        handle.signal(flows.go, "on")
        assert handle.result(30) == 2
        eventually(lambda: client.handle("o/started").describe().status == "completed")
        eventually(lambda: seen.names().count("turn observed_leaf") >= 2)
    spans = {span.name: span for span in seen.spans()}
    request = spans["request"]
    expected = {
        "start observed", "turn observed", "attempt add_one", "attempt starts_another",
        "start observed_leaf", "turn observed_leaf",
    }  # fmt: skip
    assert expected <= spans.keys()
    for name in expected:
        context, trace_id = spans[name].context, request.context
        assert context is not None
        assert trace_id is not None
        assert context.trace_id == trace_id.trace_id, name
    assert parent_of(spans["start observed"]) == span_id(request)
    assert parent_of(spans["turn observed"]) == span_id(spans["start observed"])
    adding = [
        parent_of(span)
        for span in seen.spans()
        if span.name == "attempt add_one"
        and (span.attributes or {})["durable.workflow_id"] == "o"  # the leaves add one, too
    ]
    assert adding == [span_id(spans["start observed"])] * 2
    assert parent_of(spans["start observed_leaf"]) == span_id(spans["attempt starts_another"])
    assert (spans["turn observed"].attributes or {})["durable.workflow_id"] == "o"


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def span_id(span: ReadableSpan) -> int:
    context = span.context
    assert context is not None
    return int(context.span_id)


def test_figures_have_labels_of_the_frozen_list_only(
    working: Working, client: Client, seen: Seen
) -> None:
    with working(*MODULES):
        client.start(flows.observed, 1, id="an-id-1").signal(flows.go, "secret")
        assert client.handle("an-id-1").result(30) == 1
        with pytest.raises(WorkflowFailed):
            client.start(flows.observed_failure, id="an-id-2").result(30)
        eventually(lambda: seen.count("durable.runs.closed") >= 3)
    assert {"queue", "workflow", "activity", "outcome"} == telemetry.LABELS
    points = seen.points()
    assert {name for name, _, _ in points} == set(telemetry.INSTRUMENTS)
    for name, labels, _ in points:
        assert labels.keys() <= telemetry.LABELS, name
        for value in labels.values():
            assert "an-id" not in value
            assert "secret" not in value
    assert seen.count("durable.runs.closed", workflow="observed", outcome="completed") == 1
    assert seen.count("durable.runs.closed", workflow="observed_failure", outcome="failed") == 1
    assert seen.count("durable.attempts", activity="breaks", outcome="failed") == 2
    assert seen.count("durable.attempts", activity="add_one", outcome="completed") == 3
    with pytest.raises(ValueError, match="workflow_id"):
        telemetry.labels(workflow_id="x")


def test_replay_is_silent(
    working: Working, client: Client, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "durable.app")
    with working(*MODULES, max_cached_runs=0):  # every turn but the first replays the ones before
        handle = client.start(flows.observed, 5, id="s")
        handle.signal(flows.go, "on")
        assert handle.result(30) == 5
        turns = {event.turn for event in handle.history() if event.turn}
        eventually(lambda: seen.count("durable.runs.closed", workflow="observed") == 1)
    assert seen.names().count("turn observed") == len(turns)
    assert seen.count("durable.turns", workflow="observed") == len(turns)
    lines = [record for record in caplog.records if record.name == "durable.app"]
    said = [record.getMessage() for record in lines if record.getMessage().startswith("step")]
    assert said == [f"step {n}" for n in range(5)]


def test_log_lines_know_whose_they_are(
    working: Working, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "durable.app")
    with working(*MODULES):
        handle = client.start(flows.observed, 1, id="l")
        handle.signal(flows.go, "on")
        handle.result(30)
    records = {
        record.getMessage(): vars(record)
        for record in caplog.records
        if vars(record).get("workflow_id") == "l"
    }
    step, adding = records["step 0"], records["adding"]
    assert (step["workflow_id"], step["run_id"], step["workflow"]) == (
        "l",
        handle.run_id,
        "observed",
    )
    assert (adding["workflow_id"], adding["activity"], adding["attempt"]) == ("l", "add_one", 1)
    assert step["filename"] == "telemetry_flows.py"
    assert adding["extra_of_mine"] == 7


def test_log_levels_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "durable.app")
    durable.logger.info("quiet")
    durable.logger.warning("loud")
    assert [record.getMessage() for record in caplog.records] == ["loud"]


def test_the_asynchronous_client_has_spans_too(database_url: str, seen: Seen) -> None:
    async def start() -> Any:
        async with AsyncClient(database_url) as client:
            handle = await client.start(flows.observed, 1)
            return (await handle.describe()).headers

    headers = asyncio.run(start())
    (span,) = seen.spans()
    assert span.name == "start observed"
    assert f"{span_id(span):016x}" in headers["traceparent"]


def test_without_an_sdk_nothing_is_called(working: Working, client: Client) -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    with working(*MODULES) as background:
        assert background.worker.runs.telemetry is None
        handle = client.start(flows.observed, 1)
        handle.signal(flows.go, "on")
        assert handle.result(30) == 1
        assert handle.history()[0].body.get("headers") is None


def test_authors_modules_do_not_load_opentelemetry() -> None:
    code = "import sys, durable; raise SystemExit(any(m.startswith('opentelemetry') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_switched_off_it_costs_a_look_at_two_variables() -> None:
    from durable.interceptors import around_activities

    begin = time.perf_counter()
    for _ in range(10_000):
        around_activities()
    assert (time.perf_counter() - begin) / 10_000 < 5e-6  # measured: 0.06 us
