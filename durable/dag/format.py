"""The stored form of a DAG, and how untrusted data becomes one: from JSON, from a file, from an activity that adds steps.

The types below are the form. Data is first written as JSON (which refuses what is none, is too deep or too large, and says where), then read
against the types, strictly and without unknown fields; what types cannot say of references is looked at afterwards. All problems are told at once, each with
the path to its place. So whatever comes out can be taken apart without a look: no KeyError later, and never a field that is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic refuses the one of typing before 3.12

from durable.dag.expressions import SOURCES, references, source_of
from durable.dag_errors import InvalidDag
from durable.errors import PayloadError
from durable.payload import ValueCodec
from durable.payload_schema import DEEPEST

FORMAT = 1

Step = dict[str, Any]
"""A step as it is stored; see `StoredStep`."""

_STRICT = ConfigDict(extra="forbid", strict=True)


class StoredEdge(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    step: str
    failed: NotRequired[Literal["cancel", "continue"]]
    cancelled: NotRequired[Literal["cancel", "continue"]]
    skipped: NotRequired[Literal["join", "cancel", "continue"]]


class StoredCondition(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    op: str
    of: dict[str, Any]
    value: NotRequired[Any]


_Guard = TypedDict("_Guard", {"if": StoredCondition, "otherwise": NotRequired[Any]})
_Guard.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]


class StoredBranch(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    on: dict[str, Any]
    cases: dict[str, list[str]]
    default: NotRequired[list[str]]


class StoredMap(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    over: Any
    max_concurrency: NotRequired[int]


class StoredWait(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    signal: NotRequired[str]
    timeout_us: NotRequired[int]


class StoredRetry(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    max_attempts: NotRequired[int]
    initial_interval_s: NotRequired[float]
    backoff_coefficient: NotRequired[float]
    max_interval_s: NotRequired[float]
    jitter: NotRequired[Literal["full", "none"] | float]
    non_retryable: NotRequired[list[str]]


class StoredTimeouts(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    start_to_close_s: NotRequired[float]
    schedule_to_close_s: NotRequired[float]
    schedule_to_start_s: NotRequired[float]
    heartbeat_s: NotRequired[float]


class StoredOptions(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    queue: NotRequired[str]
    priority: NotRequired[int]
    retry: NotRequired[StoredRetry]
    timeouts: NotRequired[StoredTimeouts]
    cancellation: NotRequired[Literal["try", "wait", "abandon"]]
    on_exhausted: NotRequired[Literal["fail", "pause"]]


class StoredUndo(TypedDict):
    """`takes`: which of the arguments that are offered the activity gets; all, unless it is given."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    activity: str
    takes: NotRequired[list[str]]
    options: NotRequired[StoredOptions]


class StoredCompensate(StoredUndo):
    retries: NotRequired[int]


def _edge(given: Any) -> Any:
    return {"step": given} if isinstance(given, str) else given


class StoredStep(TypedDict):
    """One of `activity`, `dag` (which may have `map`, and an activity `expand`), `branch` and `wait`. A dependency may be given as its name alone."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    name: str
    deps: NotRequired[list[Annotated[StoredEdge, BeforeValidator(_edge)]]]
    activity: NotRequired[str]
    dag: NotRequired[StoredDag]
    branch: NotRequired[StoredBranch]
    wait: NotRequired[StoredWait]
    args: NotRequired[dict[str, Any]]
    options: NotRequired[StoredOptions]
    map: NotRequired[StoredMap]
    expand: NotRequired[bool]
    when: NotRequired[StoredCondition]
    guard: NotRequired[_Guard]
    undo: NotRequired[StoredUndo]
    compensate: NotRequired[StoredCompensate]


class StoredDag(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    format: Literal[1]
    name: str
    context: NotRequired[dict[str, Any]]
    on_failure: NotRequired[Literal["fail", "complete", "wait"]]
    output: NotRequired[Any]
    steps: list[StoredStep]


_DAG: TypeAdapter[Any] = TypeAdapter(StoredDag)
_STEPS: TypeAdapter[Any] = TypeAdapter(list[StoredStep])
_JSON = ValueCodec(Any, field="definition")


def json_schema() -> dict[str, Any]:
    """The stored form as a JSON Schema, for editors and other languages."""
    return _DAG.json_schema()


def read_dag(data: Any) -> dict[str, Any]:
    """The definition that the data is, complete: defaults filled in, and what results are referred to among the dependencies.

    Raises InvalidDag with everything that is wrong with its form.
    """
    name = str(data["name"]) if isinstance(data, Mapping) and "name" in data else "?"
    if isinstance(data, Mapping) and data.get("format") != FORMAT:
        found = f"format is {data.get('format')!r}; this release reads {FORMAT}"
        raise InvalidDag(name, [found])
    read: dict[str, Any] = _read(_DAG, data, name, "")
    if problems := list(_dag_problems(read, "")):
        raise InvalidDag(name, problems)
    return _completed(read)


def form_problems(data: Any) -> list[str]:
    """What `read_dag` would raise."""
    try:
        read_dag(data)
    except InvalidDag as error:
        return error.problems
    return []


def read_steps(data: Any, name: str) -> list[Step]:
    """The steps that the data is, complete. `name`: whose they are, for the error. Raises InvalidDag."""
    read: list[Step] = _read(_STEPS, data, name, "steps.")
    if problems := [it for n, step in enumerate(read) for it in _step_problems(step, f"steps.{n}")]:
        raise InvalidDag(name, problems)
    return [_completed_step(step) for step in read]


def _read(adapter: TypeAdapter[Any], data: Any, name: str, prefix: str) -> Any:
    try:
        return adapter.validate_json(_JSON.encode(data))
    except PayloadError as error:
        told = f"{error.field.removeprefix('definition.')}: {error.rule}"
        raise InvalidDag(name, _not_json(data, prefix.rstrip(".")) or [told]) from error
    except ValidationError as error:
        each = error.errors(include_url=False, include_context=False)
        found = [f"{_place(it['loc'], prefix)}: {_RULES.get(it['type'], it['msg'])}" for it in each]
        raise InvalidDag(name, found) from None


_RULES = {"extra_forbidden": "there is no such field", "missing": "it is missing"}


def _not_json(data: Any, root: str) -> list[str]:
    """The places of what is no JSON. Bounded, for data that contains itself."""
    found: list[str] = []
    pending: list[tuple[str, Any, int]] = [(root, data, 0)]
    for _ in range(_MOST_NODES):
        if not pending:
            break
        place, node, depth = pending.pop()
        if isinstance(node, Mapping):
            found += [
                f"{place}: the key {key!r} is not text" for key in node if not isinstance(key, str)
            ]
            inner = [(f"{place}.{key}".lstrip("."), it) for key, it in node.items()]
        elif isinstance(node, list | tuple):
            inner = [(f"{place}.{n}".lstrip("."), it) for n, it in enumerate(node)]
        else:
            inner = []
            if not isinstance(node, str | int | float | None):
                found.append(f"{place}: {type(node).__name__} is not JSON")
        if depth < DEEPEST:
            pending += [(where, it, depth + 1) for where, it in reversed(inner)]
    return found


_MOST_NODES = 100_000


def _place(path: tuple[Any, ...], prefix: str) -> str:
    return prefix + ".".join(map(str, path)) if path else prefix.rstrip(".") or "definition"


# -- what types cannot say --------------------------------------------------------------------------------------------------


def _dag_problems(dag: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in _dollar_keys(dag.get("context", {})):
        yield f"{prefix}context: the key {key!r} begins with $, which is reserved"
    yield from value_problems(dag.get("output"), f"{prefix}output")
    for number, step in enumerate(dag["steps"]):
        yield from _step_problems(step, f"{prefix}steps.{number}")


_KINDS = ("activity", "dag", "branch", "wait")
_GOES_WITH = {
    "map": ("activity", "dag"),
    "args": ("activity", "dag"),
    "options": ("activity", "dag"),
    "expand": ("activity",),
    "undo": ("activity", "dag"),
    "compensate": ("activity", "dag"),
    "guard": ("activity", "dag", "wait"),
}


def _step_problems(step: Step, place: str) -> Iterator[str]:
    kinds = [key for key in _KINDS if key in step]
    if len(kinds) != 1:
        yield f"{place}: give one of {', '.join(_KINDS)}; it has {' and '.join(kinds) or 'none'}"
    for key, goes_with in _GOES_WITH.items():
        if key in step and any(kind not in goes_with for kind in kinds):
            yield f"{place}: {key} does not go with {' and '.join(kinds)}"
    if "expand" in step and "map" in step:
        yield f"{place}: expand does not go with map"
    if "dag" in step:
        yield from _dag_problems(step["dag"], f"{place}.dag.")
    for key, part in _parts(step):
        yield from value_problems(part, f"{place}.{key}")
    for key in ("when.of", "guard.if.of", "branch.on"):
        part = _at(step, key)
        if part is not None and not source_of(part):
            yield f"{place}.{key}: it is not a reference"


def _parts(step: Step) -> Iterator[tuple[str, Any]]:
    for key in (
        "args",
        "map.over",
        "when.of",
        "when.value",
        "guard.if.of",
        "guard.if.value",
        "guard.otherwise",
        "branch.on",
    ):
        yield key, _at(step, key)


def _at(step: Any, path: str) -> Any:
    for key in path.split("."):
        step = step.get(key) if isinstance(step, Mapping) else None
    return step


def value_problems(value: Any, place: str) -> Iterator[str]:
    """What is wrong with the references in a stored value. Iterative: a value may be deep."""
    pending = [(place, value)]
    while pending:
        where, node = pending.pop()
        if isinstance(node, list):
            pending.extend((f"{where}.{n}", it) for n, it in enumerate(node))
        elif isinstance(node, Mapping) and any(key.startswith("$") for key in node):
            yield from (f"{where}: {it}" for it in _reference_problems(node))
        elif isinstance(node, Mapping):
            pending.extend((f"{where}.{key}", it) for key, it in node.items())


def _reference_problems(node: Mapping[str, Any]) -> Iterator[str]:
    for key in node:
        if key.startswith("$") and key not in SOURCES:
            yield f"the key {key!r} begins with $, which is reserved"
        elif not key.startswith("$") and key not in ("path", "transform"):
            yield f"a reference has no field {key!r}"
    if sum(key in node for key in SOURCES) > 1:
        yield "a reference has one source"
    name = node.get("$result")
    if "$result" in node and not (isinstance(name, str) and name):
        yield f"$result is {name!r}; give a step's name"
    for key in ("$context", "$item"):
        if node.get(key, "") != "":
            yield f"{key} is {node[key]!r}; give an empty text, and the place as path"
    path = node.get("path", [])
    if not isinstance(path, list) or not all(_is_key(part) for part in path):
        yield f"path is {path!r}; give a list of keys and places"
    if "transform" in node and not isinstance(node["transform"], str):
        yield f"transform is {node['transform']!r}; give a name"


def _is_key(part: Any) -> bool:
    return isinstance(part, str | int) and not isinstance(part, bool)


def _dollar_keys(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, Mapping):
            yield from (key for key in node if key.startswith("$"))
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


# -- what may be left out -----------------------------------------------------------------------------------------------------


def _completed(dag: dict[str, Any]) -> dict[str, Any]:
    steps = [_completed_step(step) for step in dag["steps"]]
    return {"context": {}, "on_failure": "fail", **dag, "steps": steps}


def _completed_step(given: Step) -> Step:
    step = {key: value for key, value in given.items() if (key, value) != ("expand", False)}
    if "branch" in step:
        step["branch"] = {"default": [], **step["branch"]}
    elif "wait" not in step:
        step.setdefault("args", {})
    if "map" in step:
        step["map"] = {"max_concurrency": DEFAULT_CONCURRENCY, **step["map"]}
    if "guard" in step:
        step["guard"] = {"otherwise": None, **step["guard"]}
    if "dag" in step:
        step["dag"] = _completed(step["dag"])
    deps = list(step.get("deps", []))
    said = {it["step"] for it in deps}
    step["deps"] = deps + [{"step": name} for name in implied(step) if name not in said]
    return step


DEFAULT_CONCURRENCY = 100
"""Elements of a map under way at once, where nothing else is said."""


def implied(step: Step) -> list[str]:
    """The steps whose results it refers to, in that order."""
    return list(dict.fromkeys(it["$result"] for it in step_references(step) if "$result" in it))


def step_references(step: Step) -> Iterator[Mapping[str, Any]]:
    """Every reference of a step. The cases of a branch are names, whatever they look like."""
    branched = step.get("branch", {}).get("on")
    return references([*(step.get(key) for key in ("args", "map", "when", "guard")), branched])
