"""OpenTelemetry: spans that hang together from client to activity, and metrics whose labels are few (C17). Only the API is used here: the application
brings the SDK and its exporters.

`instrument()` switches it on for this process; a worker does so by itself when it starts and finds an SDK. Without that nothing here is called, so an
application without an SDK pays nothing.

Spans: `start|enqueue|signal <name>` where a client sends, `turn <workflow>` for each turn that recorded something, `attempt <activity>` for each
attempt. The client's span context travels in the headers (W3C `traceparent`), so the turns and attempts of a run, of its children, and of what its
activities start are in one trace, across processes and days. Replay makes no spans and no figures: only live turns are seen.

Metrics: see `INSTRUMENTS`. Labels come from `LABELS` alone: names that a program has a bounded number of. Ids, arguments, texts and users are in spans
and logs, never in labels.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from durable import interceptors
from durable.activity_context import running_attempt
from durable.interceptors import ActivityExecution, ClientRequest

T = TypeVar("T")

LABELS: Final = frozenset({"queue", "workflow", "activity", "outcome"})
"""All that a metric may be labelled with. Frozen: each value of a label multiplies the series that somebody has to store."""

INSTRUMENTS: Final[Mapping[str, str]] = {
    "durable.turns": "turns of runs that recorded something",
    "durable.turn.duration": "seconds that the code of a turn took",
    "durable.runs.closed": "runs that ended, by outcome",
    "durable.attempts": "attempts of activities that ended, by outcome",
    "durable.attempt.duration": "seconds that an attempt took",
}

_CARRIED = ("traceparent", "tracestate", "baggage")


def labels(**given: str) -> dict[str, str]:
    """The labels of a measurement. Raises ValueError for one that is not in LABELS: that is our bug, and tests find it."""
    if not given.keys() <= LABELS:
        raise ValueError(f"{sorted(given.keys() - LABELS)} may not label a metric")
    return given


class Telemetry:
    """The instruments, made once."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self.tracer = trace.get_tracer("durable", tracer_provider=tracer_provider)
        meter = metrics.get_meter("durable", meter_provider=meter_provider)
        self._turns = meter.create_counter("durable.turns", "{turn}", INSTRUMENTS["durable.turns"])
        self._turn_s = meter.create_histogram(
            "durable.turn.duration", "s", INSTRUMENTS["durable.turn.duration"]
        )
        self._closed = meter.create_counter(
            "durable.runs.closed", "{run}", INSTRUMENTS["durable.runs.closed"]
        )
        self._attempts = meter.create_counter(
            "durable.attempts", "{attempt}", INSTRUMENTS["durable.attempts"]
        )
        self._attempt_s = meter.create_histogram(
            "durable.attempt.duration", "s", INSTRUMENTS["durable.attempt.duration"]
        )

    # -- clients (a ClientInterceptor) ------------------------------------------------------------------------------------

    def send(self, request: ClientRequest, next: Callable[[ClientRequest], T]) -> T:
        """Make the span and have its context travel in the headers. With AsyncClient it does not include the wait for the database."""
        with self.tracer.start_as_current_span(
            f"{request.kind} {request.name}",
            kind=SpanKind.PRODUCER,
            attributes={} if request.id is None else {"durable.id": request.id},
        ):
            carried: dict[str, str] = {}
            propagate.inject(carried)
            return next(replace(request, headers={**(request.headers or {}), **carried}))

    # -- activities (an ActivityInterceptor) --------------------------------------------------------------------------------

    async def execute(
        self, call: ActivityExecution, next: Callable[[ActivityExecution], Awaitable[Any]]
    ) -> Any:
        """A span around one attempt, and its figures."""
        attempt = running_attempt()
        assert attempt is not None
        info = attempt.info
        began, outcome = time.monotonic(), "failed"
        with self.tracer.start_as_current_span(
            f"attempt {call.name}",
            context=_context(info.headers),
            kind=SpanKind.CONSUMER,
            attributes={
                "durable.activity": call.name,
                "durable.queue": info.queue,
                "durable.attempt": info.attempt,
                "durable.workflow_id": info.workflow_id or "",
            },
        ):
            try:
                value = await next(call)
                outcome = "completed"
                return value
            except BaseException as error:
                outcome = "failed" if isinstance(error, Exception) else "cancelled"
                raise
            finally:
                given = labels(activity=call.name, queue=info.queue, outcome=outcome)
                self._attempts.add(1, given)
                self._attempt_s.record(time.monotonic() - began, given)

    # -- runs (called by the worker after live turns; replay does not come here) ----------------------------------------------

    def turn_taken(self, run: Any, took_s: float, events: int, error: BaseException | None) -> None:
        """A live turn of a run recorded `events` events, or broke."""
        given = labels(
            workflow=run.name, queue=run.queue, outcome="parked" if error else "recorded"
        )
        self._turns.add(1, given)
        self._turn_s.record(took_s, given)
        ended_ns = time.time_ns()
        span = self.tracer.start_span(
            f"turn {run.name}",
            context=_context(run.execution.start.get("headers")),
            kind=SpanKind.CONSUMER,
            start_time=ended_ns - int(took_s * 1e9),
            attributes={
                "durable.workflow": run.name,
                "durable.workflow_id": run.workflow_id,
                "durable.run_id": run.run_id,
                "durable.queue": run.queue,
                "durable.events": events,
            },
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end(ended_ns)

    def run_closed(self, run: Any, outcome: str) -> None:
        self._closed.add(1, labels(workflow=run.name, queue=run.queue, outcome=outcome))


def _context(headers: Mapping[str, Any] | None) -> Context:
    """The sender's span context, from the headers that a run or attempt came with."""
    carrier = {
        key: value
        for key in _CARRIED
        if headers is not None and isinstance(value := headers.get(key), str)
    }
    return propagate.extract(carrier, context=Context())


_active: Telemetry | None = None


def instrument(
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Telemetry:
    """Switch telemetry on for the clients and workers of this process: with the given providers, or the global ones. Call it once the SDK is set up."""
    global _active
    _active = Telemetry(tracer_provider, meter_provider)
    interceptors.observe(_active, _active)
    return _active


def uninstrument() -> None:
    """Switch it off again."""
    global _active
    _active = None
    interceptors.observe(None, None)


def active() -> Telemetry | None:
    """The process's telemetry; a worker asks for it when it starts. Switched on here if an SDK is set up and nobody has done so."""
    if _active is None and _has_sdk():
        return instrument()
    return _active


def _has_sdk() -> bool:
    """Whether somebody has set a provider: without one, spans and figures would be made for nobody."""
    return not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider
    )
