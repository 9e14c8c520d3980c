"""Definitions in files: JSON, and YAML if PyYAML is there (`pip install 'durable[yaml]'`).

Why not just `yaml.safe_load`. It reads YAML 1.1, in which `on:`, `no` and `12:30` are true, false and 750, keeps the last of two equal keys without a word, and
follows aliases, of which a kilobyte can stand for a terabyte. A definition's own field is called `on`. So PyYAML parses, and the few rules by which
its nodes become JSON are here: those of the YAML 1.2 core schema, every key a text, nothing twice, no aliases and no tags. The nodes know their lines, and so
does what is wrong with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from durable.dag_errors import InvalidDag
from durable.errors import InvalidOption

_WHOLE = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MOST_DIGITS = 4300  # so does int()

_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))

Lines = dict[str, int]
"""The line of each place in a file, by its path."""


def read_file(path: Path) -> tuple[Any, Lines]:
    """What a file says, as data, and where. `.json` is JSON, everything else YAML. Raises InvalidDag, OSError, and as `read_yaml`."""
    name = path.name
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDag(name, [f"it is not UTF-8: {error}"]) from error
    return (read_json(text, name), {}) if path.suffix == ".json" else read_yaml(text, name)


def located(error: InvalidDag, lines: Lines) -> InvalidDag:
    """The same problems with the lines of their paths."""
    return InvalidDag(error.name, [_located(it, lines) for it in error.problems])


def _located(problem: str, lines: Lines) -> str:
    path = problem.partition(": ")[0]
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return f"line {lines[path]}: {problem}" if path else problem


_STEP = re.compile(r"""step ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


def at_steps(
    problems: Iterable[str], steps: Iterable[Mapping[str, Any]], lines: Lines
) -> list[str]:
    """Problems that name a step, with the line of that step."""
    line_of = {repr(step["name"]): lines.get(f"steps.{n}") for n, step in enumerate(steps)}
    told = [(it, _STEP.match(it)) for it in problems]
    found = [(it, line_of.get(named[1]) if named else None) for it, named in told]
    return [f"line {line}: {it}" if line else it for it, line in found]


# -- JSON -------------------------------------------------------------------------------------------------------------------


def read_json(text: str, name: str) -> Any:
    """JSON without keys that occur twice. Raises InvalidDag."""
    twice: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(pairs)
        if len(read) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in read if keys.count(key) > 1)
        return read

    try:
        data = json.loads(text, object_pairs_hook=collect)
    except ValueError as error:
        raise InvalidDag(name, [f"it is not JSON: {error}"]) from error
    except RecursionError as error:
        raise InvalidDag(name, ["it is nested too deep"]) from error
    if twice:
        raise InvalidDag(name, [f"the key {key!r} occurs twice" for key in twice])
    return data


# -- YAML -------------------------------------------------------------------------------------------------------------------


def _yaml() -> Any:
    """Raises InvalidOption if PyYAML is not installed."""
    try:
        import yaml
    except ImportError as error:
        raise InvalidOption("YAML needs the package PyYAML: pip install 'durable[yaml]'") from error
    return yaml


def read_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """What one YAML document says, and where. Raises InvalidDag, and InvalidOption without PyYAML."""
    yaml, reading = _yaml(), _Reading()
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        data = None if node is None else reading.value(node, "")
    except yaml.YAMLError as error:
        raise InvalidDag(name, [f"it is not YAML: {' '.join(str(error).split())}"]) from error
    except RecursionError as error:
        raise InvalidDag(name, ["it is nested too deep"]) from error
    if reading.problems:
        raise InvalidDag(name, reading.problems)
    return data, reading.lines


class _Reading:
    """Makes values of PyYAML's nodes."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.lines: Lines = {}
        self._seen: set[int] = set()

    def value(self, node: Any, path: str) -> Any:
        line = self.lines[path] = node.start_mark.line + 1
        if id(node) in self._seen:
            return self._refuse(line, path, "aliases are not read; write it out")
        self._seen.add(id(node))
        if node.tag not in _TAGS:
            return self._refuse(line, path, f"the tag {node.tag} is not read")
        if isinstance(node.value, str):
            return node.value if node.style else self._plain(node.value, line, path)
        if node.id == "sequence":
            return [self.value(it, _below(path, str(n))) for n, it in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: Any, path: str) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for key, value in node.value:
            line, said = key.start_mark.line + 1, key.value
            if not isinstance(said, str):
                self._refuse(line, path, "a key is not a text")
                continue
            if said in read:
                self._refuse(line, _below(path, said), f"the key {said!r} occurs twice")
            read[said] = self.value(value, _below(path, said))
            self.lines[_below(path, said)] = line
        return read

    def _plain(self, text: str, line: int, path: str) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if len(text) <= _MOST_DIGITS:
            if _WHOLE.fullmatch(text):
                return int(text)
            if _BASED.fullmatch(text):
                return int(text, 0)
            if _FRACTION.fullmatch(text):
                return float(text)
        if _NOT_FINITE.fullmatch(text):
            return self._refuse(line, path, f"{text} is not a JSON number")
        return text

    def _refuse(self, line: int, path: str, problem: str) -> None:
        self.problems.append(
            f"line {line}: {path}: {problem}" if path else f"line {line}: {problem}"
        )


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def to_yaml(definition: Mapping[str, Any]) -> str:
    """The definition as YAML that `read_yaml` and other readers take for the same. Raises InvalidOption without PyYAML."""
    yaml = _yaml()
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    dumper.add_representer(str, _represented)
    written: str = yaml.dump(
        definition, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120
    )
    return written


def _represented(dumper: Any, text: str) -> Any:
    """Quoted wherever one of the two YAMLs would take it for something else, or fold it."""
    style = '"' if _is_ambiguous(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_ambiguous(text: str) -> bool:
    found = (it.fullmatch(text) for it in (_WHOLE, _BASED, _FRACTION, _NOT_FINITE))
    return text in _WORDS or not text.isprintable() or any(found)
