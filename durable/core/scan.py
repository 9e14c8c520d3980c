"""What a workflow function does that replay cannot repeat, read from its bytecode without running it (C13).

The problem. `time.time()`, `random.random()`, `uuid.uuid4()` make no event, open nothing and are no function of ours: at run time nobody sees them.
They should be named when the workflow is decorated, all at once, with line and replacement.

What does not work. Answering them deterministically: the names in the author's module are the real functions, so they would have to be replaced for
everybody, or the module be loaded twice with proxies. So the words "`time`, `random`, `uuid` answer deterministically" are kept in the
other way: workflow code that asks for them does not get as far as running, and is told the durable namesake. Reading source: there is none in a
REPL, a zip or a compiled wheel. Matching names as text: `from datetime import datetime as dt` and a local variable
called `time` defeat it.

The solution. One pass over the instructions of the function, of the functions and lambdas nested in it, and of the plain functions of the same module that it
mentions. Names are resolved by a *scope*: the live globals and closure at decoration, or the module's own bytecode (for `durable lint`, which
imports nothing, and for helpers that stand below the workflow and do not exist yet when it is decorated). An expression `a.b(c).d` is followed by where it
begins in the source, because all its instructions begin there; nothing is simulated. Local aliases are followed too. A block
under `with durable.unguarded():` is known by the exception table: whatever is protected, directly or through inner handlers, by the
handler of that `with`.

Not looked at: activities (they are no plain functions), module-level code, functions of other modules (guard.py catches their I/O), methods of classes.

What can still fail. Values that pass through containers, attributes of objects, `getattr` or `import *`; clock and entropy in other modules. Replay's comparison is
behind all of this. In `lint`, a helper with a decorator is not followed.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, NamedTuple, Protocol

from durable.core.hazards import CANDIDATES, HAZARDS, SET_ITERATION, UNGUARDED, Hazard

Level = Literal["error", "warning"]
Free = Callable[[str], str | None]


class Finding(NamedTuple):
    """`what` is a sentence, `instead` completes "Use ..."; a warning does not stop the decoration."""

    file: str
    line: int
    function: str
    what: str
    instead: str
    level: Level


class Scope(Protocol):
    """What the names of a function mean that are not its own."""

    def dotted(self, name: str) -> str | None:
        """The qualified name of what the global `name` is bound to, if it may lead to a hazard."""

    def free(self, name: str) -> str | None:
        """The same for a variable of an enclosing function."""

    def helper(self, name: str) -> Helper | None:
        """The plain function of the same module that `name` is."""


class Helper(NamedTuple):
    code: CodeType
    scope: Scope


def scan(code: CodeType, scope: Scope) -> list[Finding]:
    """All findings in a workflow function and what it takes along, in the order of the source."""
    seen: set[int] = set()
    todo = [_Pass(code, scope, scope.free)]
    found: dict[Finding, None] = {}
    while todo:
        one = todo.pop()
        if id(one.code) not in seen:
            seen.add(id(one.code))
            one.run()
            found |= dict.fromkeys(one.found)
            todo += one.more
    return sorted(found)


# -- one function -----------------------------------------------------------------------------------------------------

_SILENT = frozenset(
    """CACHE COPY COPY_FREE_VARS EXTENDED_ARG KW_NAMES MAKE_CELL NOP NOT_TAKEN PRECALL PUSH_NULL RESUME
    SET_FUNCTION_ATTRIBUTE""".split()  # noqa: SIM905 a long list reads better so
)
_END_OF_IMPORT = (("IMPORT_FROM", "SWAP"), ("SWAP", "POP_TOP"))  # of `import a.b as c`
_CALLS = frozenset(["CALL", "CALL_FUNCTION_EX", "CALL_KW"])
_ENTERS = frozenset(["BEFORE_WITH", "LOAD_SPECIAL"])  # LOAD_SPECIAL: since 3.14
_SETS = frozenset(["builtins.set()", "builtins.frozenset()"])
_LISTS = frozenset(["builtins.list()", "builtins.tuple()"])


class _Pass:
    """One pass over one code object."""

    def __init__(self, code: CodeType, scope: Scope, free: Free) -> None:
        self.code = code
        self.scope = scope
        self.free = free
        self.found: list[Finding] = []
        self.more: list[_Pass] = []
        self.line = code.co_firstlineno
        self._at: str | None = None  # the qualified name of what the last instruction pushed
        self._chains: dict[tuple[Any, Any], str | None] = {}  # by where the expression begins
        self._locals: dict[str, str | None] = {}
        self._imported = ("", True)
        self._is_set = False  # the last instruction pushed a set
        self._handlers = list(_exception_table(code))
        self._lifted: set[int] = set()  # handlers of `with durable.unguarded()`
        self._entering = False  # such a `with` has been read, its body not yet
        self._offset = 0

    def run(self) -> None:
        """Read the instructions once."""
        loud = [each for each in dis.get_instructions(self.code) if each.opname not in _SILENT]
        last: dis.Instruction | None = None
        for each in loud:
            self._offset = each.offset
            self.line = (each.positions and each.positions.lineno) or self.line
            if self._entering:
                self._lift(each.offset)
            self._step(each, last)
            last = each

    def _step(self, it: dis.Instruction, last: dis.Instruction | None) -> None:
        name, begins = it.opname, _begins(it)
        if name in _ENTERS:
            self._entering |= self._at == f"{UNGUARDED}()"
            self._at = None
            return
        was_set, self._is_set = self._is_set, name in ("BUILD_SET", "SET_UPDATE")
        if name in ("GET_ITER", "LIST_EXTEND") and (was_set or _is_constant_set(last)):
            self._report("iterates over a set", SET_ITERATION)
        elif name in _CALLS:
            self._call(it, begins, was_set)
        elif name.startswith("IMPORT_"):
            self._import(it, last)
        elif name.startswith("STORE_") and name != "STORE_ATTR" and isinstance(it.argval, str):
            self._locals[it.argval] = self._at
        elif name == "MAKE_FUNCTION":
            self._nested(last)
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            base = self._at or self._chains.get(begins)
            self._reach(base and f"{base}.{it.argval}", begins)
        elif name.startswith("LOAD_") and name != "LOAD_CONST":
            self._load(it, begins)
        elif (last and last.opname, name) not in _END_OF_IMPORT:
            self._at = None

    def _load(self, it: dis.Instruction, begins: tuple[Any, Any]) -> None:
        name = it.argval[-1] if isinstance(it.argval, tuple) else it.argval
        if it.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            helper = self.scope.helper(name) if name not in self._locals else None
            if helper is not None and not self._is_lifted():
                self.more.append(_Pass(helper.code, helper.scope, helper.scope.free))
            self._reach(self._locals.get(name) or self.scope.dotted(name), begins)
        elif isinstance(name, str):
            self._reach(self._local(name), begins)

    def _local(self, name: str) -> str | None:
        if name in self._locals:
            return self._locals[name]
        if name not in self.code.co_freevars:
            return None
        helper = self.scope.helper(name)
        if helper is not None and not self._is_lifted():
            self.more.append(_Pass(helper.code, helper.scope, helper.scope.free))
        return self.free(name)

    def _reach(self, dotted: str | None, begins: tuple[Any, Any]) -> None:
        """The expression that begins there has come to mean `dotted`."""
        self._at = self._chains[begins] = dotted
        hazard = HAZARDS.get(dotted or "")
        if hazard is not None and not hazard.bare:
            self._report(f"{_shown(dotted)} {hazard.does}", hazard)

    def _call(self, it: dis.Instruction, begins: tuple[Any, Any], was_set: bool) -> None:
        callee = self._chains.get(begins)
        hazard = HAZARDS.get(callee or "")
        if hazard is not None and hazard.bare and it.opname == "CALL" and not it.arg:
            self._report(f"{_shown(callee)}() {hazard.does}", hazard)
        self._reach(callee and f"{callee}()", begins)
        if was_set and self._at in _LISTS:
            self._report("lists a set", SET_ITERATION)
        self._is_set = self._at in _SETS

    def _import(self, it: dis.Instruction, last: dis.Instruction | None) -> None:
        if it.opname == "IMPORT_NAME":
            whole = last is not None and bool(
                last.argval
            )  # `from a.b import c`; else `import a.b` binds a
            self._imported = (it.argval if whole else it.argval.partition(".")[0], whole)
            self._at = self._imported[0]
        elif it.opname == "IMPORT_FROM":
            base, whole = self._imported
            self._at = f"{base}.{it.argval}"
            if not whole:  # `import a.b as c` goes down step by step
                self._imported = (self._at, whole)

    def _nested(self, last: dis.Instruction | None) -> None:
        code = last.argval if last is not None else None
        self._at = None
        if isinstance(code, CodeType) and not self._is_lifted():
            self.more.append(_Pass(code, self.scope, self._local))

    # -- reporting ------------------------------------------------------------------------------------------------------

    def _report(self, what: str, hazard: Hazard) -> None:
        if self._is_lifted():
            return
        level: Level = "warning" if hazard.suspicion else "error"
        does = f"{what} {hazard.does}" if hazard is SET_ITERATION else what
        code = self.code
        self.found.append(
            Finding(code.co_filename, self.line, code.co_qualname, does, hazard.instead, level)
        )

    def _lift(self, first: int) -> None:
        """If a protected range begins here it is the body of `with durable.unguarded()`."""
        handlers = {handler for start, _, handler in self._handlers if start == first}
        self._lifted |= handlers
        self._entering = not handlers

    def _is_lifted(self) -> bool:
        """Whether the instruction is protected by such a handler, or is in a handler that is."""
        at: int | None = self._offset if self._lifted else None
        while at is not None and at not in self._lifted:
            at = next(
                (handler for start, end, handler in self._handlers if start <= at < end), None
            )
        return at is not None


def _shown(dotted: str | None) -> str:
    return (dotted or "").removeprefix("builtins.")


def _begins(it: dis.Instruction) -> tuple[Any, Any]:
    return (it.positions.lineno, it.positions.col_offset) if it.positions else (None, None)


def _is_constant_set(it: dis.Instruction | None) -> bool:
    """`for x in {"a", "b"}`; a set of numbers has the same order everywhere."""
    members = it.argval if it is not None and it.opname == "LOAD_CONST" else None
    return isinstance(members, frozenset) and not all(isinstance(each, int) for each in members)


def _exception_table(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """(start, end, handler), as byte offsets; the format is in CPython's Objects/exception_handling_notes.txt."""
    numbers = _varints(code.co_exceptiontable)
    for start in numbers:
        length, handler, _depth = next(numbers), next(numbers), next(numbers)
        yield 2 * start, 2 * (start + length), 2 * handler


def _varints(table: bytes) -> Iterator[int]:
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            yield value
            value = 0


# -- scopes -----------------------------------------------------------------------------------------------------------


class ModuleScope:
    """What the top level of a module says about its names, read from its bytecode: imports, and `def` without a decorator."""

    def __init__(self, code: CodeType) -> None:
        self._names: dict[str, str | None] = {}
        self._functions: dict[str, CodeType] = {}
        reading = _Pass(code, _Builtins(), _nothing)
        reading.run()
        self._names = reading._locals
        loud = [each for each in dis.get_instructions(code) if each.opname not in _SILENT]
        for (load, make), (_, store) in pairwise(pairwise(loud)):
            if make.opname == "MAKE_FUNCTION" and store.opname == "STORE_NAME":
                self._functions[store.argval] = load.argval

    def dotted(self, name: str) -> str | None:
        """See Scope."""
        return self._names[name] if name in self._names else _builtin(name)

    def free(self, name: str) -> str | None:  # noqa: ARG002 an enclosing function's variables are its own business
        """See Scope."""
        return None

    def helper(self, name: str) -> Helper | None:
        """See Scope."""
        code = self._functions.get(name)
        return Helper(code, self) if code is not None else None


module_scope = lru_cache(maxsize=8)(ModuleScope)


class LiveScope:
    """A function's real globals and closure. `module` is the running code of its module, for what stands further down."""

    def __init__(self, fn: FunctionType, module: CodeType | None) -> None:
        self._globals = fn.__globals__
        self._module = module
        self._cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))

    def dotted(self, name: str) -> str | None:
        """See Scope."""
        if name in self._globals:
            return qualified(self._globals[name])
        return self._later.dotted(name) if self._module else _builtin(name)

    def free(self, name: str) -> str | None:
        """See Scope."""
        return qualified(self._cell(name))

    def helper(self, name: str) -> Helper | None:
        """See Scope."""
        if name not in self._globals and name not in self._cells:
            return self._later.helper(name) if self._module else None
        it = self._cell(name) if name in self._cells else self._globals[name]
        if isinstance(it, FunctionType):
            it = getattr(it, "__wrapped__", it)
        if isinstance(it, FunctionType) and it.__globals__ is self._globals:
            return Helper(it.__code__, LiveScope(it, self._module))
        return None

    def _cell(self, name: str) -> Any:
        try:
            return self._cells[name].cell_contents
        except (KeyError, ValueError):  # ValueError: not bound yet
            return None

    @property
    def _later(self) -> ModuleScope:
        assert self._module is not None
        return module_scope(self._module)


def live_scope(fn: FunctionType) -> LiveScope:
    """The scope of a function that is being decorated; finds the code of its module if that is just running."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is fn.__globals__ and frame.f_code.co_name == "<module>":
            return LiveScope(fn, frame.f_code)
        frame = frame.f_back  # type: ignore[assignment]
    return LiveScope(fn, None)


class _Builtins:
    """The scope of a module's top level itself."""

    def dotted(self, name: str) -> str | None:
        return _builtin(name)

    def free(self, name: str) -> str | None:  # noqa: ARG002
        return None

    def helper(self, name: str) -> Helper | None:  # noqa: ARG002
        return None


def _nothing(_name: str) -> None:
    return None


def _builtin(name: str) -> str | None:
    return f"builtins.{name}" if hasattr(builtins, name) else None


_NAMED = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType)


def qualified(it: Any) -> str | None:
    """The name under which the table of hazards knows an object, however the author's module calls it."""
    if not isinstance(it, _NAMED):
        return None
    if isinstance(it, ModuleType):
        return it.__name__
    candidates = CANDIDATES.get(getattr(it, "__name__", ""), ())
    return next((dotted for dotted in candidates if _is_at(it, dotted)), None)


def _is_at(it: Any, dotted: str) -> bool:
    """Whether `it` is what `dotted` leads to, in modules that are loaded; loads nothing."""
    first, *rest = dotted.split(".")
    at: Any = sys.modules.get(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        at = sys.modules.get(path) or (
            vars(at).get(part) if isinstance(at, ModuleType) else getattr(at, part, None)
        )
    return type(at) is type(it) and bool(at == it)
