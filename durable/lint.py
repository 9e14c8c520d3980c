"""`durable lint`: the determinism scan of whole files, without importing them (C13).

A file is parsed and compiled, never run. The tree says which functions are decorated with `@workflow`; their code objects go through the scan that
the decorator makes, with what the module's own bytecode says about its names. So it sees a little less than the decorator (a helper with a
decorator, a name that is bound in a loop or by `import *`) and shows more: suspicions, which do not stop a decoration.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from durable.core.scan import Finding, ModuleScope, scan

_DECORATORS = frozenset({"durable.workflow", "durable.definitions.workflow"})
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(slots=True)
class Report:
    """What was found. `unreadable` has one line for each file that is missing, not UTF-8 or not Python."""

    files: int = 0
    workflows: int = 0
    findings: list[Finding] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: nothing found; 1: something found; 2: something could not be read."""
        return 2 if self.unreadable else 1 if self.findings else 0


def lint(paths: Sequence[Path]) -> Report:
    """Scan files, and folders with all below them except hidden ones, `node_modules` and `site-packages`."""
    report = Report()
    for path in paths:
        for file in _files(path):
            report.files += 1
            _lint_file(file, report)
    report.findings = sorted(dict.fromkeys(report.findings))
    return report


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*.py")):
        inside = file.relative_to(path).parts
        if not any(part.startswith(".") or part in _SKIPPED for part in inside):
            yield file


def _lint_file(file: Path, report: Report) -> None:
    try:
        text = file.read_bytes()
        tree = ast.parse(text, str(file))
        module = compile(text, str(file), "exec", dont_inherit=True)
    except OSError as error:
        report.unreadable.append(f"{file}: {error.strerror or error}")
    except (SyntaxError, ValueError) as error:  # ValueError: a NUL byte
        report.unreadable.append(f"{file}: not Python: {error}")
    else:
        scope = ModuleScope(module)
        wanted = set(_decorated(tree, scope))
        for code in _codes(module):
            if (code.co_name, code.co_firstlineno) in wanted:
                report.workflows += 1
                report.findings += scan(code, scope)


def _decorated(tree: ast.Module, scope: ModuleScope) -> Iterator[tuple[str, int]]:
    """Name and first line (that of the first decorator, as in the code object) of the functions decorated with @workflow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
            _dotted(each, scope) in _DECORATORS for each in node.decorator_list
        ):
            yield node.name, node.decorator_list[0].lineno


def _dotted(node: ast.expr, scope: ModuleScope) -> str | None:
    match node:
        case ast.Call(func=called):
            return _dotted(called, scope)
        case ast.Attribute(value=owner, attr=name):
            return f"{_dotted(owner, scope)}.{name}"
        case ast.Name(id=name):
            return scope.dotted(name)
        case _:
            return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)
