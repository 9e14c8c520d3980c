"""`durable verify`: can the code in this folder go on with the runs that exist? A deploy gate."""

from __future__ import annotations

import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from durable.cli.exits import DONE, INCOMPATIBLE, NOTHING_CHECKED, BadInput
from durable.cli.output import line, print_json
from durable.cli.settings import Json, Url, import_modules

if TYPE_CHECKING:
    from durable.histories import RecordedHistory
    from durable.replays import Incompatibility, Report, Verification
    from durable.store.histories import HistoryReader, StoredRun

SHOWN = 20
"""How many different incompatibilities are shown in full; --json has all."""

PROGRESS_S = 2.0


def verify(
    modules: Annotated[
        list[str],
        typer.Argument(metavar="MODULE...", help="Modules with the code.", show_default=False),
    ],
    *,
    history: Annotated[
        list[Path] | None,
        typer.Option("--history", metavar="PATH", help="Exported files or folders, no database."),
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Only so many runs, chosen at random.")
    ] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Also runs that have ended, with pinned ones.")
    ] = False,
    pinned: Annotated[
        bool, typer.Option("--pinned", help="Also runs that stay with another build.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Runs of workflows not in MODULE... fail the check.")
    ] = False,
    url: Url = None,
    in_json: Json = False,
) -> None:
    """Replay every open run against this code; list what would break.

    Reads only. Exit code 0: all compatible; 7: some are not; 8: nothing was checked.
    """
    from durable.modules import workflows_in
    from durable.replays import Verification

    workflows = workflows_in(import_modules(modules))
    if not workflows:
        raise BadInput(f"{', '.join(modules)}: no @workflow is defined there")
    progress = Progress()
    checking = Verification(workflows, progress.show)
    if history:
        _check_files(checking, history, workflow)
    else:
        _check_database(checking, progress, url, workflow, sample, closed=closed, pinned=pinned)
    _print(checking.report, in_json=in_json)
    raise SystemExit(_code(checking.report, strict=strict))


class Progress:
    """A line on standard error every two seconds."""

    def __init__(self) -> None:
        self.total = 0
        self._next = time.monotonic() + PROGRESS_S

    def show(self, report: Report) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PROGRESS_S
        of = f" of about {self.total:,}" if self.total else ""
        bad = len(report.incompatible)
        print(
            f"checked {report.checked:,}{of} runs, {bad:,} incompatible",
            file=sys.stderr,
            flush=True,
        )


def _code(report: Report, *, strict: bool) -> int:
    if report.incompatible or (strict and report.skipped):
        return INCOMPATIBLE
    return DONE if report.checked else NOTHING_CHECKED


def _check_files(checking: Verification, paths: Iterable[Path], workflow: str | None) -> None:
    from durable.histories import RecordedHistory, exported_files

    for path in exported_files(paths):
        history = RecordedHistory.load(path)
        if workflow in (None, history.workflow) and checking.concerns(
            history.workflow_id, history.run_id, history.workflow, history.version
        ):
            checking.check(history)


def _check_database(
    checking: Verification,
    progress: Progress,
    url: str | None,
    workflow: str | None,
    sample: int | None,
    *,
    closed: bool,
    pinned: bool,
) -> None:
    from durable.requests import database_url
    from durable.store.histories import HistoryReader

    with HistoryReader(database_url(url)) as reader:
        progress.total = sample or reader.count(workflow=workflow, closed=closed)
        runs = reader.runs(workflow=workflow, closed=closed)
        for history in _chosen(checking, reader, runs, sample, pinned=pinned or closed):
            checking.check(history)


def _chosen(
    checking: Verification,
    reader: HistoryReader,
    runs: Iterator[StoredRun],
    sample: int | None,
    *,
    pinned: bool,
) -> Iterator[RecordedHistory]:
    def free() -> Iterator[StoredRun]:
        for run in runs:
            if run.build is not None and not pinned:
                checking.report.pinned += 1
            else:
                yield run

    eligible = free() if sample is None else iter(_sampled(free(), sample))
    return reader.histories(
        run
        for run in eligible
        if checking.concerns(run.workflow_id, run.run_id, run.workflow, run.version)
    )


def _sampled(runs: Iterator[StoredRun], count: int) -> list[StoredRun]:
    """Each with the same chance, from one pass over the ids (reservoir sampling)."""
    kept: list[StoredRun] = []
    for seen, run in enumerate(runs):
        if len(kept) < count:
            kept.append(run)
        elif (place := random.randrange(seen + 1)) < count:  # noqa: S311 - a sample, not a secret
            kept[place] = run
    return sorted(kept)


# -- what is printed --------------------------------------------------------------------------------------------------


def _print(report: Report, *, in_json: bool) -> None:
    if in_json:
        print_json(report)
        return
    groups: defaultdict[tuple[object, ...], list[Incompatibility]] = defaultdict(list)
    for each in report.incompatible:
        groups[each.likeness].append(each)
    for alike in list(groups.values())[:SHOWN]:
        _print_group(alike)
    if len(groups) > SHOWN:
        line(f"and {len(groups) - SHOWN} more kinds of incompatibility; --json lists all of them")
        line()
    for name, count in sorted(report.skipped.items()):
        said = f"not checked: {_runs(count)} of {name}, which is not in these modules"
        line(said, style="yellow")
    if report.pinned:
        line(f"not checked: {_runs(report.pinned)} pinned to a build")
    bad = len(report.incompatible)
    if bad:
        line(f"{bad:,} of {_runs(report.checked)} cannot go on with this code", style="bold red")
    elif report.checked:
        said = f"{_runs(report.checked)}, {report.events:,} events"
        line(f"{said}: nothing stands against going on with this code", style="green")
    else:
        line("nothing was checked", style="yellow")


def _print_group(alike: list[Incompatibility]) -> None:
    first, count = alike[0], len(alike)
    ids = ", ".join(each.workflow_id for each in alike[:3]) + (", ..." if count > 3 else "")
    where = f"{_runs(count)}: {ids}"
    line(f"{first.workflow} version {first.version}: {first.kind} in {where}", style="red")
    for text in first.message.splitlines():
        line(f"  {text}")
    line()


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"
