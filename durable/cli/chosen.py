"""The workflow or job that a command is given, or the filter over many: `ID` or `--where FILTER`, and the options of every such command."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

import typer

from durable.cli.exits import DONE, REFUSED, BadInput
from durable.cli.output import line, print_json
from durable.cli.settings import Actor, Json, Reason, Url, given_reason, open_client, who

if TYPE_CHECKING:
    from durable.client_sync import Client
    from durable.descriptions import BatchProgress
    from durable.handles_sync import Handle
    from durable.interventions import BatchAction
    from durable.job_commands import JobAction
    from durable.jobs_sync import JobHandle

P = ParamSpec("P")
C = TypeVar("C", bound="Chosen")

OptionalId = Annotated[
    str | None, typer.Argument(metavar="ID", help="The workflow's id.", show_default=False)
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Instead of an ID: all that pass, e.g. 'workflow=checkout status=running attribute.region=eu'.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --where: only count.")]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What `on_chosen` gives a command in place of these options."""

    workflow_id: OptionalId = None
    where: Where = None
    dry_run: DryRun = False
    reason: Reason = None
    actor: Actor = None
    url: Url = None
    in_json: Json = False

    @property
    def by(self) -> str:
        return self.actor or who()

    @property
    def why(self) -> str:
        """Raises BadInput when no reason was given."""
        return given_reason(self.reason)

    def over(self, client: Client) -> Any:
        """What runs an action over a filter."""
        return client.batch

    def many(self, action: BatchAction | JobAction, **options: Any) -> bool:
        """Whether a filter was given; if so, the action was run over it, with its progress on stderr.

        Raises BadInput for an ID and a filter, or neither. Leaves with 1 if any was refused.
        """
        if (self.workflow_id is None) == (self.where is None):
            raise BadInput("give an ID, or --where FILTER")
        if self.where is None:
            return False
        report = None if self.in_json else report_progress
        with open_client(self.url) as client:
            done = self.over(client)(
                action, self.where, reason=self.why, actor=self.by, dry_run=self.dry_run,
                progress=report, **options,
            )  # fmt: skip
        if self.dry_run:
            _print_count(done, in_json=self.in_json)
        else:
            leave(done, in_json=self.in_json)
        return True

    @contextmanager
    def one(self) -> Iterator[Handle[Any]]:
        """The workflow of the ID, where no filter was given."""
        assert self.workflow_id is not None
        with open_client(self.url) as client:
            yield client.handle(self.workflow_id)

    def print(self, said: Any, text: str, *, style: str = "green") -> None:
        """What became of it: `said` for programs, or the text for people."""
        if self.in_json:
            print_json(said)
        else:
            line(text, style=style)


@dataclass(frozen=True, slots=True)
class ChosenJobs(Chosen):
    """The same for standalone jobs."""

    workflow_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The job's id.", show_default=False)
    ] = None
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="FILTER",
            help="Instead of an ID: all jobs that pass, e.g. 'state=discarded activity=send_email queue=mail tag=x meta.tenant=7'.",
        ),
    ] = None

    @property
    def job_id(self) -> str:
        return self.workflow_id or ""

    def over(self, client: Client) -> Any:
        return client.batch_jobs

    @contextmanager
    def job(self) -> Iterator[JobHandle[Any]]:
        """The job of the ID, where no filter was given."""
        with open_client(self.url) as client:
            yield client.job(self.job_id)


def on_chosen(command: Callable[Concatenate[C, P], None]) -> Callable[..., None]:
    """A command for Typer whose options are those of its first parameter's class, `Chosen` or `ChosenJobs`, with the command's own between the ID and the others."""
    first, *own = inspect.signature(command).parameters.values()
    hints = get_type_hints(command, include_extras=True)
    chosen: Any = hints.pop(first.name)
    shared = dict(inspect.signature(chosen).parameters)
    workflow_id = shared["workflow_id"]
    others = [each for name, each in shared.items() if name != "workflow_id"]
    options = [each.replace(kind=each.KEYWORD_ONLY) for each in (*own, *others)]
    hints = get_type_hints(chosen, include_extras=True) | hints

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(chosen(**{name: given.pop(name) for name in shared}), **given)  # type: ignore[call-arg] # P is what is left of `given`

    run.__annotations__ = hints
    signed = [each.replace(annotation=hints[each.name]) for each in (workflow_id, *options)]
    run.__dict__["__signature__"] = inspect.Signature(signed)
    return run


def report_progress(progress: BatchProgress) -> None:
    said = f"{progress.action}: {progress.accepted + progress.refused} of {progress.matched}, {progress.refused} refused"
    if sys.stderr.isatty():  # one line that changes
        end = "\n" if progress.finished_at else ""
        print(f"\r\x1b[K{said}", end=end, file=sys.stderr, flush=True)
    else:
        print(said, file=sys.stderr, flush=True)


def _print_count(counted: BatchProgress, *, in_json: bool) -> None:
    if in_json:
        print_json({"dry_run": True, "action": counted.action, "matched": counted.matched})
    else:
        shown = " ".join(f"{key}={value}" for key, value in counted.filter.items())
        verb, _, what = counted.action.partition("_")
        said = f"{counted.matched} {what}".strip()
        line(f"would {verb} {said} ({shown}); nothing was done")


def leave(done: BatchProgress, *, in_json: bool) -> None:
    """Print how a batch ended, and end the command with its code."""
    if in_json:
        print_json(done)
    else:
        style = "yellow" if done.refused else "green"
        line(f"{done.action}: {done.accepted} accepted, {done.refused} refused", style=style)
        if done.refused:
            line(f"durable commands --batch {done.batch_id} says why", style="dim")
    raise SystemExit(REFUSED if done.refused else DONE)
