"""The rules of docs/architecture.md that a program can check, read from the source with `ast`.

Each rule lists what breaks it as `file:line: what`, so a failure says where to look. A new top-level module of `durable` has to be
given a layer in LAYERS: that is a decision, and this is where it is written down.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
FACADE = "durable"
"""`durable/__init__.py`: it re-exports what authors import, so only entry points may import it back."""

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "durable.errors",
            "durable.failure",
            "durable.failure_values",
            "durable.ids",
            "durable.completion_errors",
            "durable.dag_errors",
            "durable.encryption",
            "durable.job_errors",
            "durable.payload",
            "durable.payload_codecs",
            "durable.payload_schema",
            "durable.signal_errors",
        }
    ),
    frozenset({"durable.core"}),
    frozenset(
        {
            "durable.activity_context",
            "durable.completion_tokens",
            "durable.activity_modes",
            "durable.activity_outcomes",
            "durable.attributes",
            "durable.authoring",
            "durable.context",
            "durable.dag",
            "durable.definitions",
            "durable.graphs",
            "durable.handlers",
            "durable.descriptions",
            "durable.explanations",
            "durable.in_process",
            "durable.histories",
            "durable.interceptors",
            "durable.lint",
            "durable.logs",
            "durable.refusals",
            "durable.modules",
            "durable.options",
            "durable.patching",
            "durable.payload_stores",
            "durable.replays",
            "durable.queue_limits",
            "durable.saga",
            "durable.schedules",
            "durable.signals",
            "durable.store",
            "durable.telemetry",
            "durable.transactional",
            "durable.unique",
        }
    ),
    frozenset(
        {
            "durable.client_async",
            "durable.evidence_async",
            "durable.evidence_sync",
            "durable.completing_async",
            "durable.completing_sync",
            "durable.dag_steps_async",
            "durable.dag_steps_sync",
            "durable.filters",
            "durable.client_sync",
            "durable.conversation_async",
            "durable.conversation_sync",
            "durable.messages",
            "durable.enqueueing",
            "durable.explaining_async",
            "durable.explaining_sync",
            "durable.grouping",
            "durable.groups_async",
            "durable.groups_sync",
            "durable.handles_async",
            "durable.handles_sync",
            "durable.batches_async",
            "durable.batches_sync",
            "durable.interventions",
            "durable.operations_async",
            "durable.operations_sync",
            "durable.job_batches_async",
            "durable.job_batches_sync",
            "durable.job_commands",
            "durable.jobs_async",
            "durable.jobs_sync",
            "durable.outcomes",
            "durable.queues_async",
            "durable.queues_sync",
            "durable.recorded_jobs",
            "durable.requests",
            "durable.retention_async",
            "durable.retention_requests",
            "durable.retention_sync",
            "durable.schedule_requests",
            "durable.scheduling_async",
            "durable.scheduling_sync",
            "durable.targets",
        }
    ),
    frozenset(
        {
            "durable.__main__",
            "durable.cli",
            "durable.demo",
            "durable.dev",
            "durable.embedded",
            "durable.testing",
        }
    ),
    frozenset({"durable_worker"}),
)
ENTRY_POINTS = 4
"""The layer that starts processes. Its functions may import the worker late, to run it; its modules may not."""

NOT_IN_CORE = frozenset(
    [
        "logging",
        "opentelemetry",
        "psycopg",
        "random",
        "secrets",
        "select",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
    ]
)
NO_CLOCK = {
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom"},
}
ONLY_IN = {
    "greenlet": ("durable.core.fiber",),
    "psycopg": ("durable.store", "durable.embedded"),
    "opentelemetry": ("durable.telemetry",),
}
NAMES_THAT_SAY_NOTHING = frozenset(
    ["common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"]
)
SQL = re.compile(
    r"\s*(select\s.+\sfrom\s|select\s+\w+(\.\w+)?\(|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s"
    r"|create\s+(table|index|function)\s|with\s+\w+\s+as\s*\(|listen\s+\w+$|notify\s+\w+)",
    re.IGNORECASE | re.DOTALL,
)
LONGEST_FUNCTION = 70
LONGEST_FILE = 600
MEDIAN_FUNCTION = 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    path: Path
    module: str
    text: str
    tree: ast.Module

    def at(self, node: ast.stmt | ast.expr, what: str) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}: {what}"

    def within(self, *packages: str) -> bool:
        return any(self.module == name or self.module.startswith(f"{name}.") for name in packages)


@dataclass(frozen=True, slots=True)
class Import:
    target: str
    node: ast.stmt
    late: bool
    """Inside a function."""


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return tuple(_source(path) for path in found)


def _source(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "worker" else parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(path, module, text, ast.parse(text, str(path)))


def product() -> tuple[Source, ...]:
    return sources("durable", "worker")


def imports(source: Source) -> Iterator[Import]:
    late = {id(inner) for function in functions(source) for inner in ast.walk(function)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node, id(node) in late)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(_imported(source, node, alias.name), node, id(node) in late)


def _imported(source: Source, node: ast.ImportFrom, name: str) -> str:
    """The module that `from module import name` reaches: `module.name` if that is one of ours."""
    assert node.level == 0, source.at(node, "relative import; write the whole name")
    full = f"{node.module}.{name}"
    return full if full in {each.module for each in product()} else str(node.module)


def functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def layer(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    return None


def length(function: Function) -> int:
    """Lines from the first decorator to the end."""
    first = min([function, *function.decorator_list], key=lambda node: node.lineno)
    return (function.end_lineno or function.lineno) - first.lineno + 1


def strings(source: Source) -> Iterator[ast.Constant]:
    """String constants that are no docstrings; a string that stands alone documents what is above it."""
    alone = {id(node.value) for node in ast.walk(source.tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node


def test_there_is_code_to_look_at() -> None:
    assert {"durable.core.loop", "durable.store.migrate", "durable_worker.worker"} <= {
        source.module for source in product()
    }


def test_every_module_has_a_layer() -> None:
    nowhere = [s.module for s in product() if s.module != FACADE and layer(s.module) is None]
    assert nowhere == [], "give each a layer in LAYERS, as docs/architecture.md has it"


def test_imports_go_down() -> None:
    assert [problem for source in product() for problem in upward(source)] == []


def upward(source: Source) -> Iterator[str]:
    own = layer(source.module)
    if own is None:
        return
    for found in imports(source):
        other = layer(found.target)
        if other is not None and other > own and not (own == ENTRY_POINTS and found.late):
            yield source.at(found.node, f"imports {found.target}, a layer above")
        if found.target == FACADE and own < ENTRY_POINTS:
            yield source.at(
                found.node, "imports the package itself; import the module that defines it"
            )


def test_core_is_pure() -> None:
    core = [source for source in product() if source.within("durable.core")]
    assert [problem for source in core for problem in impure(source)] == []


def impure(source: Source) -> Iterator[str]:
    for found in imports(source):
        if found.target.partition(".")[0] in NOT_IN_CORE:
            yield source.at(found.node, f"imports {found.target}")
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if name in NO_CLOCK.get(
                owner, ()
            ):
                yield source.at(node, f"{owner}.{name}")
            case ast.ImportFrom(module=str(module), names=names):
                banned = NO_CLOCK.get(module, set()).intersection(alias.name for alias in names)
                yield from (source.at(node, f"imports {name}") for name in banned)
            case _:
                pass


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_in_its_place_only(package: str) -> None:
    assert [
        source.at(found.node, f"imports {found.target}")
        for source in product()
        for found in imports(source)
        if found.target.partition(".")[0] == package and not source.within(*ONLY_IN[package])
    ] == []


def test_sql_is_in_the_store_only() -> None:
    assert [
        source.at(string, f"SQL: {str(string.value).strip()[:60]!r}")
        for source in product()
        for string in strings(source)
        if SQL.match(str(string.value)) and not source.within("durable.store")
    ] == []


def test_no_module_is_named_after_nothing() -> None:
    everywhere = sources("durable", "worker", "tests", "samples", "bench")
    assert [s.module for s in everywhere if NAMES_THAT_SAY_NOTHING & set(s.module.split("."))] == []


def test_files_are_short() -> None:
    everywhere = sources("durable", "worker", "tests", "samples", "bench")
    long = {s.module: lines for s in everywhere if (lines := s.text.count("\n")) > LONGEST_FILE}
    assert long == {}


def test_functions_are_short() -> None:
    everywhere = sources("durable", "worker", "samples", "bench")
    assert [
        source.at(function, f"{function.name} has {length(function)} lines")
        for source in everywhere
        for function in functions(source)
        if length(function) > LONGEST_FUNCTION
    ] == []


def test_the_usual_function_is_very_short() -> None:
    assert (
        median(length(each) for source in product() for each in functions(source))
        <= MEDIAN_FUNCTION
    )


def test_tests_do_not_sleep() -> None:
    """A sleep in a workflow or activity under test is the subject, not the test's own waiting; without a database asyncio's is a turn of a virtual clock."""
    waiting = [s for s in sources("tests") if s.module != "tests.waiting"]
    assert [problem for source in waiting for problem in sleeps(source)] == []


def sleeps(source: Source) -> Iterator[str]:
    virtual = source.within("tests.core", "tests.guard", "tests.values")
    waits = {"time.sleep"} if virtual else {"time.sleep", "asyncio.sleep"}
    subjects = (function for function in functions(source) if function.decorator_list)
    excused = {id(node) for function in subjects for node in ast.walk(function)}
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in waits
            and ast.unparse(node.args[0]) != "0"  # which only lets others run
            and id(node) not in excused
        ):
            yield source.at(node, "sleeps; wait for a state with tests.waiting.eventually")


# -- the rules themselves can fail -------------------------------------------------------------------------------------


def made_up(module: str, text: str) -> Source:
    return Source(ROOT / "made_up.py", module, text, ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import monotonic",
        "from psycopg.rows import dict_row",
        "from uuid import uuid4",
        "import uuid\nuuid.uuid4()",
        "from datetime import datetime\ndef f(): return datetime.now()",
    ],
)
def test_impurity_is_seen(text: str) -> None:
    assert list(impure(made_up("durable.core.x", text)))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("durable.core.x", "from durable.store import migrate"),
        ("durable.store.x", "from durable import client_sync"),
        ("durable.store.x", "def f():\n    from durable.cli import main"),
        ("durable.cli.x", "import durable_worker.worker"),
        ("durable.core.x", "from durable import Signal"),
        ("durable.errors", "import durable.payload, durable.core.loop"),
    ],
)
def test_an_upward_import_is_seen(module: str, text: str) -> None:
    assert list(upward(made_up(module, text)))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("durable.store.x", "from durable.core.events import Event"),
        ("durable.cli.x", "def worker():\n    from durable_worker.main import main"),
        ("durable_worker.x", "from durable.store import engine"),
    ],
)
def test_a_downward_import_is_fine(module: str, text: str) -> None:
    assert list(upward(made_up(module, text))) == []


def test_a_sleep_is_seen_and_an_activity_s_is_not() -> None:
    asleep = "import time\ndef test_x():\n    time.sleep(1)\n"
    assert list(sleeps(made_up("tests.system.x", asleep.replace("time", "asyncio"))))
    assert list(sleeps(made_up("tests.x", asleep)))
    assert not list(sleeps(made_up("tests.x", asleep.replace("def", "@activity\ndef"))))


@pytest.mark.parametrize(
    ("text", "is_sql"),
    [
        ("select 1 from t", True),
        ("select durable.now()", True),
        ("insert into durable.runs", True),
        ("select a queue with --queue", False),
        ("update the package", False),
        ("with a remedy", False),
    ],
)
def test_what_counts_as_sql(text: str, is_sql: bool) -> None:
    assert bool(SQL.match(text)) == is_sql
