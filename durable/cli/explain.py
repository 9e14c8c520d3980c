"""`durable explain`: why a workflow, step, job or schedule does not go on, for people who are in a hurry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from durable.cli.exits import BadInput
from durable.cli.output import STYLES, line, print_json
from durable.cli.settings import App, Json, Url, import_app, open_client

if TYPE_CHECKING:
    from durable.core.causes import Cause, Dependency, Explanation, OperatorStatus

_WORDS: dict[OperatorStatus, str] = {
    "needs_review": "NEEDS REVIEW", "blocked": "BLOCKED", "waiting": "WAITING", "runnable": "RUNNABLE", "done": "DONE",
}  # fmt: skip
_MEANS: dict[OperatorStatus, str] = {
    "needs_review": "it stays so until somebody decides",
    "blocked": "it stays so until somebody acts",
    "waiting": "nothing is wrong: it goes on when what it waits for has happened",
    "runnable": "nothing is wrong: a worker has it, or will take it next",
    "done": "there is nothing left to do",
}
_WIDE = 13
_LONG = 70


def explain(
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A workflow, else a job, else a schedule.", show_default=False
        ),
    ],
    *,
    step: Annotated[
        str | None,
        typer.Option(
            "--step",
            metavar="STEP",
            help="One step of a DAG, or one pending activity: the id of its call, or its event's number.",
        ),
    ] = None,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="ID is a schedule's, whatever else has it.")
    ] = False,
    app: App = None,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Say why a workflow, a step of it, a job or a schedule does not go on.

    And what can be done: durable explain o-1
    """
    if schedule and step is not None:
        raise BadInput("--step is for workflows; a schedule has none")
    import_app(app)
    with open_client(url) as client:
        found = client.schedule_handle(id).explain() if schedule else client.explain(id, step=step)
    if in_json:
        print_json({**_fields(found), "next_steps": found.next_steps})
    else:
        _print(found)


def _fields(found: Explanation) -> dict[str, object]:
    from dataclasses import fields

    return {field.name: getattr(found, field.name) for field in fields(found)}


def _print(found: Explanation) -> None:
    line(f"{found.id}  {found.kind} {found.name}", style="bold")
    line(f"{_WORDS[found.status]}: {_MEANS[found.status]}", style=STYLES.get(found.status, "green"))
    _print_causes(found)
    _print_dependencies(found)
    _print_tasks(found)
    _print_steps(found)


def _print_causes(found: Explanation) -> None:
    line()
    for index, each in enumerate(found.causes):
        _print_cause("why" if index == 0 else "", each)
        for below in each.causes:
            _print_cause("", below, "  ")


def _print_cause(label: str, each: Cause, indent: str = "") -> None:
    about = f"{each.about}: " if each.about else ""
    first, *more = f"{about}{each.sentence}".splitlines()
    where = f"  [{each.line}]" if each.line else ""
    line(f"{label:<{_WIDE}}{indent}{first}{where}", style=STYLES.get(each.status, ""))
    for text in more:
        line(f"{'':<{_WIDE}}{indent}  {text}")


def _print_dependencies(found: Explanation) -> None:
    if not found.dependencies:
        return
    line()
    for index, each in enumerate(found.dependencies):
        line(f"{'waits for' if index == 0 else '':<{_WIDE}}{_dependency(each)}")
    if found.unlisted:
        line(f"{'':<{_WIDE}}and {found.unlisted} more")


def _dependency(each: Dependency) -> str:
    number = f" #{each.seq}" if each.seq else ""
    codes = ", ".join(it.code for it in each.causes)
    where = f"  at {each.line}" if each.line else ""
    return f"{each.kind} {each.name}{number}  {each.state}{f' ({codes})' if codes else ''}{where}"


def _print_tasks(found: Explanation) -> None:
    if not found.tasks:
        return
    line()
    said = {"worker": "the worker that holds it says so", "replay": "replayed here with this code"}
    line(f"{'code stands':<{_WIDE}}({said.get(found.tasks_from, 'as recorded')})", style="dim")
    for task in found.tasks:
        line(f"{'':<{_WIDE}}{task.task}: {' > '.join(task.lines) or '(not in your code)'}")


def _print_steps(found: Explanation) -> None:
    steps = found.next_steps
    if not steps:
        return
    line()
    widest = max((len(it.command) for it in steps if len(it.command) <= _LONG), default=0)
    for index, step in enumerate(steps):
        label = "you can" if index == 0 else ""
        line(f"{label:<{_WIDE}}{step.command:<{widest}}  {step.remark}")
