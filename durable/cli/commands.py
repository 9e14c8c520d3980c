"""The table of commands. What each does is in the module named beside it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from durable.cli import (
    completion,
    converse,
    dag,
    dag_files,
    inspect,
    jobs,
    operate,
    prune,
    queues,
    rewind,
    schedule,
    serve,
)
from durable.cli.batches import batch
from durable.cli.builds import move
from durable.cli.doctor import doctor
from durable.cli.evidence import evidence, recover
from durable.cli.explain import explain
from durable.cli.graph import graph, watch
from durable.cli.lint import lint
from durable.cli.mend import activity
from durable.cli.replay import replay
from durable.cli.sections import Sectioned
from durable.cli.verify import verify

EPILOG = (
    "Exit codes: 0 done, 1 refused or failed, 2 bad usage or input, 3 not found, 4 no database or schema, "
    "5 the workflow failed, 6 timed out. Example: durable signal o-1 payment_confirmed '{\"amount\": 10}'"
)

app = typer.Typer(
    name="durable",
    cls=Sectioned,
    help="Durable execution for Python on PostgreSQL alone.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def durable(
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="The database; DURABLE_DATABASE_URL if not given."
        ),
    ] = None,
    app_module: Annotated[
        str | None,
        typer.Option(
            "--app", metavar="MODULE", help="Import this module; DURABLE_APP if not given."
        ),
    ] = None,
) -> None:
    """Both options may stand before or after the command."""
    if url:
        os.environ["DURABLE_DATABASE_URL"] = url
    if app_module:
        os.environ["DURABLE_APP"] = app_module


_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app.command("demo", context_settings=_PASSED_ON)(serve.demo)
app.command("dev")(serve.dev)
app.command("worker", context_settings=_PASSED_ON)(serve.worker)
app.command("migrate")(serve.migrate)
app.command("start")(operate.start)
app.command("signal")(operate.signal)
app.command("query")(converse.query)
app.command("update")(converse.update)
app.command("result")(operate.result)
app.command("cancel")(operate.cancel)
app.command("terminate")(operate.terminate)
app.command("pause")(rewind.pause)
app.command("resume")(rewind.resume)
app.command("retry")(rewind.retry)
app.command("reset")(rewind.reset)
app.command("fork")(rewind.fork)
app.add_typer(activity, name="activity")
dag.app.command("validate")(dag_files.validate)
dag.app.command("start")(dag_files.start)
dag.app.command("schema")(dag_files.schema)
app.add_typer(dag.app, name="dag")
app.add_typer(batch, name="batch")
app.command("commands")(rewind.commands)
app.command("evidence")(evidence)
app.add_typer(recover, name="recover")
app.command("move")(move)
app.command("complete")(completion.complete)
app.command("fail")(completion.fail)
app.command("heartbeat")(completion.heartbeat)
app.command("list")(inspect.list_)
app.command("show")(inspect.show)
app.command("history")(inspect.history)
app.command("explain")(explain)
app.command("graph")(graph)
app.command("watch")(watch)
app.command("enqueue")(jobs.enqueue)
app.add_typer(jobs.app, name="job")
app.command("doctor")(doctor)
app.command("lint")(lint)
app.command("verify")(verify)
app.command("replay")(replay)
app.command("prune")(prune.prune)
app.add_typer(prune.app)
app.add_typer(schedule.app)
app.add_typer(queues.app, name="queue")
