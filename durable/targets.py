"""From what a caller names to what is started or sent: definitions of this process, or those that workers have registered.

A definition of this process checks and writes values with its codecs. One that only the database knows comes with a JSON Schema, which is
looser (a validator written in Python is not in it); the worker checks again with the real types.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from durable.dag import own_options
from durable.dag.model import INTERPRETER, Dag
from durable.definitions import (
    DEFAULTS_KEY,
    Activity,
    Workflow,
    defined_twice,
    registered_activities,
    registered_workflows,
)
from durable.errors import (
    InvalidOption,
    PayloadError,
    UnknownActivity,
    UnknownSignal,
    UnknownWorkflow,
)
from durable.options import job_options
from durable.payload import ValueCodec
from durable.requests import Target
from durable.signals import Signal, registered_signals
from durable.store.calls import Definition
from durable.unique import Unique

T = TypeVar("T")

DEFAULT_QUEUE = "default"

_ARGUMENTS = ValueCodec(dict[str, Any], field="arguments")
_VALUE = ValueCodec(Any, field="value")
_RESULT = ValueCodec(Any, field="result")


def of_workflow(workflow: Any) -> Target:
    """Raises UnknownWorkflow unless it is decorated with @workflow or a Dag; InvalidDag if that is not valid."""
    if isinstance(workflow, Dag):
        return of_dag(workflow)
    if not isinstance(workflow, Workflow):
        msg = f"start takes a function decorated with @workflow, or its name, not {workflow!r}"
        raise UnknownWorkflow(msg)
    codec, retry = workflow.arguments, workflow.retry
    options: dict[str, Any] = {} if retry is None else {"retry": retry.to_body()}
    if workflow.on_exhausted == "pause":
        options["on_exhausted"] = "pause"
    options |= workflow.limits.to_body()
    if workflow.pinned:
        options["pinned"] = True
    queue, priority = workflow.queue or DEFAULT_QUEUE, workflow.priority or 0
    return Target(
        workflow.name,
        workflow.version,
        queue,
        priority,
        options,
        codec.encode,
        codec.result,
        workflow.require_actor,
    )


def of_dag(dag: Dag, registered: Sequence[Definition] = ()) -> Target:
    """The interpreter with the definition as its argument. `registered`: activities of the DAG that this process has not imported.

    Raises InvalidDag, and on a start with arguments PayloadError.
    """
    from durable.dag.interpreter import run_dag  # registers it, which only those who use DAGs want

    target = of_workflow(run_dag)
    dag.validate({it.name: (it.schema, _defaults(it).get("result", {})) for it in registered})
    own = {it.name: own_options.of_registered(it.queue, it.options) for it in registered}
    own |= own_options.of_imported()
    definition = {**dag.to_json(), "steps": own_options.with_own_options(dag.steps, own)}

    def encode(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> str:
        if args or arguments:
            raise PayloadError("arguments", "a dag takes none", "Give Dag(..., context={...}).")
        return target.encode((definition,), {})

    return replace(target, encode=encode)


def unchecked_dag() -> InvalidOption:
    return InvalidOption(
        f"{INTERPRETER!r} runs declared workflows, and nobody would check this one; start a Dag instead:"
        " client.start(Dag.from_json(definition)), or durable dag start FILE"
    )


def not_imported(dag: Dag) -> list[str]:
    """The activities that a DAG names and this process does not know."""
    known = {it.name for it in registered_activities()} | set(dag.activities)
    return [name for name in dag.activity_names() if name not in known]


def of_activity(activity: Any) -> Target:
    """Raises UnknownActivity unless it is decorated with @activity."""
    if not isinstance(activity, Activity):
        msg = f"enqueue takes a function decorated with @activity, or its name, not {activity!r}"
        raise UnknownActivity(msg)
    return _of_activity(activity)


@lru_cache(maxsize=1024)
def _of_activity(activity: Activity[..., Any]) -> Target:
    """Kept: nothing of it changes, and each enqueue asks for it."""
    codec = activity.arguments
    queue, priority = activity.queue or DEFAULT_QUEUE, activity.priority or 0
    options = job_options(activity.options_given)
    return Target(
        activity.name,
        1,
        queue,
        priority,
        options,
        codec.encode,
        codec.result,
        activity.require_actor,
        activity.unique,
    )


def local_activity(name: str) -> Activity[..., Any] | None:
    """The activity of that name that this process has imported. Raises InvalidOption if there are two."""
    found = [each for each in registered_activities() if each.name == name]
    for other in found[1:]:
        raise defined_twice("activity", found[0], other)
    return found[0] if found else None


def by_name(target: Target, decode: Callable[[str], Any]) -> Target:
    """The same target, taking its arguments as a mapping of JSON values. `decode`: its codec's."""

    def encode(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> str:
        given = _ARGUMENTS.encode(_by_name(args, arguments))
        return target.encode(*_read(decode, given))

    return replace(target, encode=encode, read=decode)


def local_workflow(name: str, version: int | None = None) -> Target | None:
    """That version of the name (None: the newest) that this process has imported; it takes its arguments as a mapping."""
    found = _imported(name, version)
    if found is None:
        return None
    return by_name(of_workflow(found), found.arguments.decode)


def another_version(workflow: Workflow[..., Any], version: int) -> Target | None:
    """Another version of the given workflow, if this process has imported it; it takes its arguments as the workflow itself would."""
    found = _imported(workflow.name, version)
    return None if found is None else of_workflow(found)


def _imported(name: str, version: int | None) -> Workflow[..., Any] | None:
    """Raises InvalidOption when two functions are that version."""
    versions = [it for it in registered_workflows() if it.name == name]
    if version is not None:
        versions = [it for it in versions if it.version == version]
    if not versions:
        return None
    found = max(versions, key=lambda it: it.version)
    for other in versions:
        if other is not found and other.version == found.version:
            raise defined_twice("workflow", found, other)
    return found


def of_definition(definition: Definition) -> Target:
    """What a worker has registered; it takes its arguments as a mapping, checked against the JSON Schema."""
    options = dict(definition.options)
    priority, unique = options.pop("priority", 0), options.pop("unique", None)
    of_start = ("require_actor", "result")  # of the definition, not of what is made
    options |= {key: value for key, value in _defaults(definition).items() if key not in of_start}

    def encode(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> str:
        given = _by_name(args, arguments)
        _check("", given, definition.schema)
        return _ARGUMENTS.encode(given)

    return Target(
        definition.name,
        definition.version,
        definition.queue or DEFAULT_QUEUE,
        priority,
        options,
        encode,
        None,
        requires_actor(definition),
        None if unique is None else Unique.from_body(definition.name, unique),
    )


def requires_actor(definition: Definition) -> bool:
    return bool(_defaults(definition).get("require_actor"))


def _defaults(definition: Definition) -> Mapping[str, Any]:
    """What its decorator says about starts, as registered."""
    defaults: Mapping[str, Any] = definition.schema.get(DEFAULTS_KEY, {})
    return defaults


def _by_name(args: tuple[Any, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    if len(args) > 1 or (args and not isinstance(args[0], Mapping)):
        rule = "what is started or enqueued by its name takes its arguments as one mapping"
        raise PayloadError("arguments", rule, 'Write start("name", {"parameter": value}).')
    return {**(args[0] if args else {}), **arguments}


def result_payload(activity: str | None, value: Any) -> str:
    """What an activity returns as JSON text, checked against its type if this process has imported it. Raises PayloadError.

    None: there is no such activity, and the database will refuse the token.
    """
    if activity is None:
        return "null"
    if (local := local_activity(activity)) is None:
        return _RESULT.encode(value)
    codec: ValueCodec = local.arguments.result
    return codec.encode(fitting(codec, value))


def fitting(codec: ValueCodec, value: Any) -> Any:
    """The value of the codec's type that plain JSON stands for; a value of that type stays as it is. Raises PayloadError."""
    if isinstance(value, dict | list | str | int | float | bool | None):
        return _read(codec.decode, _VALUE.encode(value))
    return value


def unknown_workflow(name: str, known: Sequence[str]) -> UnknownWorkflow:
    return UnknownWorkflow(_unknown("workflow", name, known))


def unknown_activity(name: str, known: Sequence[str]) -> UnknownActivity:
    return UnknownActivity(_unknown("activity", name, known))


def unknown_version(name: str, version: int, known: Sequence[int]) -> UnknownWorkflow:
    """`known`: the versions of that name that workers have registered, at least one."""
    said = ", ".join(map(str, known))
    return UnknownWorkflow(
        f"workflow {name!r} has no version {version} here; workers have registered {said} (start a worker that has it first)"
    )


# -- signals ----------------------------------------------------------------------------------------------------------


def local_signal(name: str) -> Signal[Any] | None:
    """The signal of that name that this process has imported."""
    found = {str(each.type): each for each in registered_signals() if each.name == name}
    if len(found) > 1:
        raise InvalidOption(
            f"signal {name!r} is declared with the types {', '.join(found)}; pass the Signal object instead of its name"
        )
    return next(iter(found.values()), None)


def signal_payload(signal: Any, value: Any) -> tuple[str, str]:
    """The signal's name and the value as JSON text. Raises PayloadError; UnknownSignal if it is no Signal."""
    if not isinstance(signal, Signal):
        msg = f"signal takes a durable.Signal, or its name, not {signal!r}"
        raise UnknownSignal(msg)
    return signal.name, signal.codec.encode(value)


def checked_json(definition: Definition, value: Any) -> str:
    """Plain JSON as text, checked against what a worker has registered."""
    _check("value", value, definition.schema)
    return _VALUE.encode(value)


def checked_by_schema(field: str, schema: Mapping[str, Any], value: Any) -> str:
    """Plain JSON as text, checked against a JSON Schema. Raises PayloadError naming the place."""
    _check(field, value, schema)
    return _VALUE.encode(value)


def read(decode: Callable[[str], T], text: str) -> T:
    """Decode what the caller gave. Raises PayloadError with a remedy for callers."""
    return _read(decode, text)


def unknown_signal(name: str, known: Sequence[str]) -> UnknownSignal:
    return UnknownSignal(_unknown("signal", name, known))


def _read(decode: Callable[[str], T], text: str) -> T:
    """Decode what the caller gave: the error's remedy for stored data would mislead."""
    try:
        return decode(text)
    except PayloadError as error:
        raise PayloadError(error.field, error.rule, "Pass a value that fits its type.") from error


# -- checks -----------------------------------------------------------------------------------------------------------


def _check(field: str, value: Any, schema: Mapping[str, Any]) -> None:
    """Raises PayloadError naming the first place where the value does not fit."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    text = (_ARGUMENTS if not field else _VALUE).encode(value)
    error = best_match(Draft202012Validator(schema).iter_errors(json.loads(text)))
    if error is not None:
        path = ".".join([*([field] if field else []), *(str(part) for part in error.absolute_path)])
        raise PayloadError(
            path or "arguments", error.message, "Pass a value that fits the registered type."
        )


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    if close := difflib.get_close_matches(name, known, 3):
        hint = f"did you mean {' or '.join(close)}?"
    elif known:
        hint = f"known: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}"
    else:
        hint = f"none is known: no worker has registered a {kind} in this database"
    return f"no {kind} is named {name!r}; {hint} (start a worker with its module, or import it here: --app MODULE)"
