"""`Dag`: a workflow that is declared instead of written. It builds the stored definition, which is plain JSON; nothing runs here.

What cannot be stored is collected while the DAG is built and reported with all else by `validate`, so that an author sees every problem at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from durable.core.children import ChildFuture
from durable.core.durations import duration_us
from durable.core.policy import RetryPolicy
from durable.dag import files
from durable.dag.compensating import DEFAULT_RETRIES, OFFERED, Purpose, taken
from durable.dag.expressions import Condition, Ref
from durable.dag.format import DEFAULT_CONCURRENCY, FORMAT, Step, implied, read_dag
from durable.dag.own_options import of_imported, with_own_options
from durable.dag.scheduler import Edge
from durable.dag.step_options import stored_options
from durable.dag_errors import InvalidDag
from durable.definitions import Activity, ActivityCall, registered_activities
from durable.errors import PayloadError
from durable.options import ActivityOptions
from durable.payload import ValueCodec, value_codec
from durable.signals import Signal

INTERPRETER = "durable.dag"
"""The reserved name of the workflow that runs DAGs."""
LONGEST_STEP_NAME = 150

EdgePolicy = Literal["cancel", "continue"]
SkipPolicy = Literal["join", "cancel", "continue"]
OnFailure = Literal["fail", "complete", "wait"]


def edge(
    step: str,
    *,
    policy: EdgePolicy = "cancel",
    failed: EdgePolicy | None = None,
    cancelled: EdgePolicy | None = None,
    skipped: SkipPolicy | None = None,
) -> Edge:
    """A dependency on `step`, and what happens when it does not complete.

    "cancel": the dependent step is cancelled, and what depends on it. "continue": it runs all the same. `policy` is for `failed`, `cancelled` and
    `skipped` where they do not say; `skipped` is otherwise "join": a skipped dependency counts as satisfied, but a step of which all are skipped is
    skipped too.
    """
    on_skip: SkipPolicy = "continue" if policy == "continue" else "join"
    return Edge(step, failed or policy, cancelled or policy, skipped or on_skip)


@dataclass(frozen=True, slots=True)
class Guard:
    """See `guard`."""

    condition: Condition
    otherwise: Any = None


def guard(condition: Condition, *, otherwise: Any = None) -> Guard:
    """Run the step if the condition holds, else let it complete with the value `otherwise` without running."""
    return Guard(condition, otherwise)


Registered = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]

NO_OUTPUT: Any = object()


class Dag:
    """Steps and what they depend on: `Dag("sync").add("fetch", fetch, {"id": 7}).add("save", save, {"it": result("fetch")})`.

    `client.start(dag, id=...)` starts it; its result is `{step: {"status": ..., "result": ..., "failure": ..., "cause": ...}}`, or `output` where
    that is given: a value that is or contains `result(...)`. `context` is a JSON object that steps refer to with `context(...)`. `on_failure`: when
    all steps have ended and one failed, the run fails ("fail", with DagFailed), completes, or waits for somebody to retry the step or to give the
    run up ("wait"). Inside a workflow, `await dag()` runs it as a child; as a step of another DAG, see `add`.
    """

    def __init__(
        self,
        name: str,
        *,
        context: Mapping[str, Any] | None = None,
        on_failure: OnFailure = "fail",
        output: Any = NO_OUTPUT,
    ) -> None:
        self.name = name
        self.on_failure: OnFailure = on_failure
        self.steps: list[Step] = []
        self.lines: files.Lines = {}
        """Where a definition from a file has what; for problems."""
        self.problems_found: list[str] = []
        self.activities: dict[str, Activity[..., Any]] = {}
        """Those given as objects; others are looked up by name."""
        self.context: dict[str, Any] = {
            key: self._stored(f"context.{key}", value) for key, value in (context or {}).items()
        }
        self.output = {} if output is NO_OUTPUT else {"output": self._stored("output", output)}

    def add(
        self,
        name: str,
        activity: ActivityCall[..., Any] | str | Dag,
        args: Mapping[str, Any] | None = None,
        *,
        expand: bool = False,
        deps: Sequence[str | Edge] = (),
        when: Condition | None = None,
        guard: Guard | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo: ActivityCall[..., Any] | str | None = None,
        compensate: ActivityCall[..., Any] | str | None = None,
        compensate_retries: int = DEFAULT_RETRIES,
    ) -> Dag:
        """Add a step that runs an activity with `args`, by parameter name; values may be or contain `result(...)` and `context(...)`.

        Every step whose result it refers to is a dependency; `deps` names others, or says with `edge` what else a dependency's end means. `when`: the
        step is skipped unless it holds. `guard`: see there. The options are those of `Activity.options`.

        In place of an activity, another DAG, as it is now: it runs as a child (`retry` and `timeout` are the child's), `args` go over its context, and its
        result is the step's. With `expand`, the activity returns further steps, as `Dag.expansion()` gives them: they are added to the run, and
        the step ends when they have, with their results by name.

        `undo`: an activity that takes back what the step did when the run fails or is cancelled after it. `compensate`: one that is asked when the
        step has failed, and decides how it goes on. Which arguments they get is said in `durable.dag.compensating`, how often `compensate` may have
        the step run again by `compensate_retries`.
        """
        given = ActivityOptions(queue, priority, retry, timeout)
        step = self._calling_step(name, activity, args or {}, given)
        self._reversible(step, undo, compensate, compensate_retries)
        if expand:
            step["expand"] = True
        return self._append(step, deps, when, guard)

    def map(
        self,
        name: str,
        activity: ActivityCall[..., Any] | str | Dag,
        over: Ref | Sequence[Any],
        args: Mapping[str, Any],
        *,
        max_concurrency: int = DEFAULT_CONCURRENCY,
        deps: Sequence[str | Edge] = (),
        when: Condition | None = None,
        guard: Guard | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        undo: ActivityCall[..., Any] | str | None = None,
        compensate: ActivityCall[..., Any] | str | None = None,
        compensate_retries: int = DEFAULT_RETRIES,
    ) -> Dag:
        """Add a step that runs an activity, or another DAG, for each element of `over`, at most `max_concurrency` at once; its result has theirs in order.

        `args` refer to the element with `item()`. When one fails, no more are started, those under way are awaited, and the step fails. `undo` and
        `compensate` are called for each element.
        """
        given = ActivityOptions(queue, priority, retry, timeout)
        step = self._calling_step(name, activity, args, given)
        self._reversible(step, undo, compensate, compensate_retries)
        elements = self._stored(f"step {name!r}: over", over)
        step["map"] = {"over": elements, "max_concurrency": max_concurrency}
        return self._append(step, deps, when, guard)

    def branch(
        self,
        name: str,
        on: Ref,
        cases: Mapping[str, Sequence[str]],
        *,
        default: Sequence[str] = (),
        deps: Sequence[str | Edge] = (),
        when: Condition | None = None,
    ) -> Dag:
        """Add a switch: of the steps in `cases` and `default`, those of the case that `on` equals can run; the others are skipped.

        The value is compared as text (true and false as in JSON); it is the step's result.
        """
        branches = {"on": on.to_json(), "cases": {key: list(it) for key, it in cases.items()}}
        return self._append(
            {"name": name, "branch": {**branches, "default": list(default)}}, deps, when, None
        )

    def wait(
        self,
        name: str,
        *,
        signal: Signal[Any] | str | None = None,
        timeout: timedelta | None = None,
        deps: Sequence[str | Edge] = (),
        when: Condition | None = None,
        guard: Guard | None = None,
    ) -> Dag:
        """Add a step that runs nothing: somebody completes it, with `client.complete_step(id, name, payload=...)`, or sends `signal`.

        Its result is the payload, or the signal's value. What comes before the step has begun is kept for it. The step fails with TimeoutError when nobody
        did so within `timeout` of its begin.
        """
        waits: dict[str, Any] = {}
        if signal is not None:
            waits["signal"] = signal if isinstance(signal, str) else signal.name
        if timeout is not None:
            waits["timeout_us"] = duration_us("timeout", timeout)
        return self._append({"name": name, "wait": waits}, deps, when, guard)

    def to_json(self) -> dict[str, Any]:
        """The definition as data; `Dag.from_json` reads it back."""
        return {
            "format": FORMAT,
            "name": self.name,
            "context": self.context,
            "on_failure": self.on_failure,
            **self.output,
            "steps": list(self.steps),
        }

    @classmethod
    def from_json(cls, stored: Any) -> Dag:
        """A definition from data. Raises InvalidDag with all that is wrong with its form; `problems()` tells what else is."""
        read = read_dag(stored)
        dag = cls(read["name"], on_failure=read["on_failure"])
        dag.context, dag.steps = read["context"], read["steps"]
        dag.output = {"output": read["output"]} if "output" in read else {}
        return dag

    def to_yaml(self) -> str:
        """The definition as YAML; `Dag.from_yaml` reads it back. Raises InvalidOption if PyYAML is not installed (`durable[yaml]`)."""
        return files.to_yaml(self.to_json())

    @classmethod
    def from_yaml(cls, text: str) -> Dag:
        """A definition from YAML, by the rules of YAML 1.2, without aliases and tags.

        Raises InvalidDag with all that is wrong with its form, and InvalidOption if PyYAML is not installed (`durable[yaml]`).
        """
        return cls._located(*files.read_yaml(text, "?"))

    @classmethod
    def from_file(cls, path: str | Path) -> Dag:
        """A definition from a file: JSON if it ends in `.json`, else YAML. Raises as `from_yaml`, and OSError."""
        return cls._located(*files.read_file(Path(path)))

    @classmethod
    def _located(cls, data: Any, lines: files.Lines) -> Dag:
        try:
            dag = cls.from_json(data)
        except InvalidDag as error:
            raise files.located(error, lines) from None
        dag.lines = lines
        return dag

    def expansion(self) -> list[Step]:
        """Its steps, for the activity of a step with `expand` to return. They may depend on steps of the run that they are added to.

        Raises InvalidDag for what can be told here. What they refer to is looked at by the run, which fails the step if it does not exist.
        """
        from durable.dag.validation import expansion_problems

        if found := expansion_problems(self):
            raise InvalidDag(self.name, found)
        return with_own_options(self.steps, of_imported())

    def activity_names(self) -> list[str]:
        """The activities that its steps name, those of DAGs within it included."""
        found: dict[str, None] = {}
        pending = [self.steps]
        while pending:
            for step in pending.pop():
                if "dag" in step:
                    pending.append(step["dag"]["steps"])
                calling = (step, step.get("undo", {}), step.get("compensate", {}))
                found.update((it["activity"], None) for it in calling if "activity" in it)
        return list(found)

    def problems(self, registered: Registered | None = None) -> list[str]:
        """Everything that is wrong with it, a line each; empty if it can be started.

        `registered`: of activities that this process has not imported, the JSON Schemas of arguments and result.
        """
        from durable.dag.validation import problems

        return files.at_steps(problems(self, registered), self.steps, self.lines)

    def validate(self, registered: Registered | None = None) -> Dag:
        """Raises InvalidDag with all problems; see there."""
        if found := self.problems(registered):
            raise InvalidDag(self.name, found)
        return self

    def __call__(self) -> ChildFuture[Any]:
        """Inside a workflow: run it as a child. Raises InvalidDag, and NotInWorkflow elsewhere."""
        from durable.dag.interpreter import run_dag

        steps = with_own_options(self.validate().steps, of_imported())
        return run_dag({**self.to_json(), "steps": steps})

    # -- building -----------------------------------------------------------------------------------------------------------

    def _calling_step(
        self,
        name: str,
        activity: ActivityCall[..., Any] | str | Dag,
        args: Mapping[str, Any],
        given: ActivityOptions,
    ) -> Step:
        step: Step = {"name": name}
        if isinstance(activity, ActivityCall):
            step["activity"] = activity.activity.name
            self.activities[activity.activity.name] = activity.activity
            given = given.over(activity.options_given)
        elif isinstance(activity, Dag):
            step["dag"] = activity.to_json()
            self.activities |= activity.activities
            self.problems_found += [f"step {name!r}: {it}" for it in activity.problems_found]
        else:
            step["activity"] = activity
        step["args"] = {
            key: self._stored(f"step {name!r}: {key}", value) for key, value in args.items()
        }
        if options := stored_options(given):
            step["options"] = options
        return step

    def _reversible(
        self,
        step: Step,
        undo: ActivityCall[..., Any] | str | None,
        compensate: ActivityCall[..., Any] | str | None,
        retries: int,
    ) -> None:
        """Note the activities that undo and compensate a step."""
        if undo is not None:
            step["undo"] = self._answering("undo", undo)
        if compensate is not None:
            more = {} if retries == DEFAULT_RETRIES else {"retries": retries}
            step["compensate"] = {**self._answering("compensate", compensate), **more}

    def _answering(self, purpose: Purpose, activity: ActivityCall[..., Any] | str) -> Step:
        """The stored form. What is given by name takes all that is offered, unless the activity is known here and says otherwise."""
        if isinstance(activity, str):
            known = next((it for it in registered_activities() if it.name == activity), None)
            stored: Step = {"activity": activity}
        else:
            known = self.activities[activity.activity.name] = activity.activity
            stored = {"activity": known.name}
            if options := stored_options(activity.options_given):
                stored["options"] = options
        if known is not None and (takes := taken(purpose, known)) != list(OFFERED[purpose]):
            stored["takes"] = takes
        return stored

    def _append(
        self,
        step: Step,
        deps: Sequence[str | Edge],
        when: Condition | None,
        guard: Guard | None,
    ) -> Dag:
        place = f"step {step['name']!r}"
        if when is not None and (condition := self._stored(f"{place}: when", when)):
            step["when"] = condition
        if guard is not None and (condition := self._stored(f"{place}: guard", guard.condition)):
            otherwise = self._stored(f"{place}: guard", guard.otherwise)
            step["guard"] = {"if": condition, "otherwise": otherwise}
        edges = [each if isinstance(each, Edge) else Edge(each) for each in deps]
        said = {each.upstream for each in edges}
        edges += [Edge(upstream) for upstream in implied(step) if upstream not in said]
        step["deps"] = [stored_edge(each) for each in edges]
        self.steps.append(step)
        return self

    def _stored(self, place: str, value: Any) -> Any:
        try:
            return self._plain(place, value)
        except PayloadError as error:
            self.problems_found.append(f"{error.field}: {error.rule}")
        except RecursionError:
            self.problems_found.append(f"{place}: it is nested too deep, or contains itself")
        return None

    def _plain(self, place: str, value: Any) -> Any:
        """The value as JSON. Raises PayloadError naming the path."""
        if isinstance(value, Ref):
            return value.to_json()
        if isinstance(value, Condition):
            return {**value.to_json(), "value": self._plain(f"{place}.value", value.value)}
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or key.startswith("$"):
                    rule = f"the key {key!r} is not text, or begins with $, which is reserved"
                    raise PayloadError(place, rule, "Use another key.")
            return {key: self._plain(f"{place}.{key}", each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(f"{place}.{n}", each) for n, each in enumerate(value)]
        known = isinstance(value, BaseModel) or is_dataclass(value)
        codec = value_codec(type(value)) if known else ValueCodec(Any, field=place)
        return json.loads(codec.encode(value))


def stored_edge(edge: Edge) -> dict[str, Any]:
    default = Edge(edge.upstream)
    policies = {key: getattr(edge, key) for key in ("failed", "cancelled", "skipped")}
    changed = {key: value for key, value in policies.items() if value != getattr(default, key)}
    return {"step": edge.upstream, **changed}


def edges_of(steps: Sequence[Step]) -> dict[str, list[Edge]]:
    """The edges into each step: its own, and for those that a branch names, the branch's."""
    found = {
        step["name"]: [
            Edge(
                it["step"],
                it.get("failed", "cancel"),
                it.get("cancelled", "cancel"),
                it.get("skipped", "join"),
            )
            for it in step["deps"]
        ]
        for step in steps
    }
    for step in steps:
        if "branch" in step:
            for target, made in _branched(step).items():
                if target in found:
                    found[target] = [
                        made,
                        *(it for it in found[target] if it.upstream != step["name"]),
                    ]
    return found


def _branched(step: Step) -> dict[str, Edge]:
    cases, name = step["branch"]["cases"], step["name"]
    keys: dict[str, list[str]] = {}
    for key, targets in cases.items():
        for target in targets:
            keys.setdefault(target, []).append(key)
    made = {target: Edge(name, only=tuple(chosen)) for target, chosen in keys.items()}
    for target in step["branch"]["default"]:
        others = tuple(key for key in cases if key not in keys.get(target, ()))
        made[target] = Edge(name, unless=others)
    return made
