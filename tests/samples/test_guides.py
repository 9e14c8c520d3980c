"""What the pages of docs/guide show runs as it stands there, and every command of theirs is one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from durable import Client, WorkflowFailed
from durable.cli.commands import app
from tests.samples import guide_pages
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guide"
PAGES = sorted(path.name for path in GUIDES.glob("*.md"))


def blocks(page: str, language: str = "python") -> list[str]:
    text = (GUIDES / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def filled(program: str, shown: list[str]) -> str:
    """The program with the page's blocks where it names them, each at least once."""

    def block(line: re.Match[str]) -> str:
        return textwrap.indent(shown[int(line[2])], line[1])

    named = {int(number) for number in re.findall(r"#: (\d+)|BLOCKS\[(\d+)", program) for number in number if number}  # fmt: skip
    assert named == set(range(len(shown))), "a block of the page that no program runs"
    return re.sub(r"^( *)#: (\d+)$", block, program, flags=re.MULTILINE)


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "worker")))
    return {**os.environ, "PYTHONPATH": path, "DURABLE_DATABASE_URL": database_url}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def serving(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    def begin(module: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "durable_worker", module, "--poll", "0.05", *options]
        return subprocess.Popen(command, cwd=tmp_path, env=environment)

    return begin


PROGRAMS = {
    "context-and-codecs.md": guide_pages.CONTEXT,
    "evidence.md": guide_pages.EVIDENCE,
    "graphs.md": guide_pages.GRAPHS,
    "identity-and-limits.md": guide_pages.IDENTITY,
    "operations.md": guide_pages.OPERATIONS,
    "queues.md": guide_pages.QUEUES,
    "telemetry.md": guide_pages.TELEMETRY,
    "ways-to-run-an-activity.md": guide_pages.WAYS,
}


@pytest.mark.parametrize("page", PROGRAMS)
def test_a_page_s_code_runs(
    page: str, database_url: str, tmp_path: Path, run: Callable[..., str]
) -> None:
    shown = blocks(page)
    head = f"URL, BLOCKS = {database_url!r}, {shown!r}\n"
    (tmp_path / "page.py").write_text(head + filled(PROGRAMS[page], shown), encoding="utf-8")
    said = run("page.py")
    if page == "telemetry.md":
        assert "durable.app charging o-1" in said
        assert {'"name": "start checkout"', '"name": "turn checkout"'} <= set(
            re.findall(r'"name": "[^"]*"', said)
        )


def test_jobs(
    client: Client,
    database_url: str,
    tmp_path: Path,
    run: Callable[..., str],
    serving: Callable[..., subprocess.Popen[bytes]],
) -> None:
    shown = blocks("jobs.md")
    definition, _, program = shown[0].partition("\n\nwith Client()")
    (tmp_path / "first.py").write_text(definition, encoding="utf-8")
    (tmp_path / "second.py").write_text(
        f"from durable import Client\nfrom first import send_email\nwith Client(){program}",
        encoding="utf-8",
    )
    with serving("first", "--queue", "mail=20") as process:
        try:
            assert run("second.py") == "sent 'Welcome' to ann@example.org\n"
        finally:
            process.terminate()
    head = f"URL = {database_url!r}\n"
    others = filled(f"{guide_pages.JOBS}\n#: 0\n", ["", *shown[1:]])
    (tmp_path / "page.py").write_text(head + others, encoding="utf-8")
    run("page.py")
    assert {job.state for job in client.jobs(activity="send_email")} == {"completed"}


def test_queries_and_updates(
    tmp_path: Path, run: Callable[..., str], serving: Callable[..., subprocess.Popen[bytes]]
) -> None:
    module, program = blocks("queries-and-updates.md")
    (tmp_path / "cart.py").write_text(module, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    with serving("cart") as process:
        try:
            said = run("program.py").splitlines()
        finally:
            process.terminate()
    told = list(re.findall(r"# (\d+)$|; (\d+)$", program, re.MULTILINE))
    assert said[:2] == [first or second for first, second in told] == ["300", "700"]
    assert said[2] == "[Item(sku='tea', amount=1), Item(sku='milk', amount=1)]"
    assert said[3] == "[{'sku': 'tea', 'amount': 1}, {'sku': 'milk', 'amount': 1}]"
    assert said[4:] == ["1200", "1200", "300"]


def test_dags(
    client: Client,
    tmp_path: Path,
    run: Callable[..., str],
    serving: Callable[..., subprocess.Popen[bytes]],
) -> None:
    module, program, nested, expanding, by_hand = blocks("dags.md")
    (stored,) = blocks("dags.md", "yaml")
    (tmp_path / "customers.py").write_text(module, encoding="utf-8")
    (tmp_path / "crawling.py").write_text(expanding, encoding="utf-8")
    (tmp_path / "stored.yaml").write_text(stored, encoding="utf-8")
    for number, text in enumerate((program, nested, by_hand)):
        (tmp_path / f"program_{number}.py").write_text(text, encoding="utf-8")
    (tmp_path / "program_3.py").write_text(guide_pages.DAGS, encoding="utf-8")
    with serving("customers", "crawling") as process:
        try:
            said = [run(f"program_{number}.py") for number in range(4)]
        finally:
            process.terminate()
    assert "reminded of 12" in said[0]
    assert said[1].startswith("{'status': 'completed', 'result': [2, 2]}\n")
    assert said[2].startswith("step_ended []\n('file',)\n")
    assert said[3] == "3\nreminded of 12\n"


def test_sagas(
    client: Client,
    tmp_path: Path,
    run: Callable[..., str],
    serving: Callable[..., subprocess.Popen[bytes]],
) -> None:
    module, written, declared = blocks("sagas.md")
    served = "from trips import *\nfrom written import *\n"
    texts = {"trips": module, "written": written, "declared": declared, "served": served}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    with serving("served") as process:
        try:
            said = run("declared.py").splitlines()
            with pytest.raises(WorkflowFailed):
                client.start("book_holiday", {"card": "stolen"}, id="written").result(timeout=30)
            assert client.start("book_holiday", {"card": "good"}).result(timeout=30) == "paid 900"
        finally:
            process.terminate()
    assert said == re.findall(r"print\(.*\)  # (.*)", declared)
    undone = [
        it for it in client.handle("written").history() if it.body.get("name") == "cancel_booking"
    ]
    assert [it.payload["result"]["what"] for it in undone] == ["flight", "hotel"]


def test_schedules(
    client: Client,
    database_url: str,
    tmp_path: Path,
    run: Callable[..., str],
    serving: Callable[..., subprocess.Popen[bytes]],
) -> None:
    module, program = blocks("schedules.md")
    (tmp_path / "books.py").write_text(module, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    with serving("books") as process:
        try:
            eventually(lambda: len(client.schedules()) == 2)
            assert [each.declared for each in client.schedules()] == [True, True]
            said = run("program.py")
            handle = client.schedule_handle("books-us")
            eventually(lambda: [s.decision for s in handle.slots()].count("started") == 6, 30.0)
            with psycopg.connect(database_url, autocommit=True) as sql:
                sql.execute("select durable.advance_clock('8 days')")
            eventually(lambda: client.schedule_handle("close_books").slots(decision="started"))
            eventually(lambda: client.schedule_handle("clean_up").slots(decision="started"))
        finally:
            process.terminate()
    assert said.startswith("cron 30 8 * * MON-FRI, America/Chicago")


def test_embedding(tmp_path: Path, run: Callable[..., str]) -> None:
    (program,) = blocks("embedding.md")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    assert run("program.py") == "['Hello, Ann!', 'Hello, Bob!']\nHello, Cid!\n"


def test_retention(client: Client, tmp_path: Path, run: Callable[..., str]) -> None:
    (program,) = blocks("retention.md")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    assert "PruneReport(runs=0" in run("program.py")
    assert len(client.retention()) == 5


def test_testing(tmp_path: Path, run: Callable[..., str]) -> None:
    jobs, workflows = blocks("testing.md")
    (tmp_path / "shop.py").write_text(guide_pages.SHOP, encoding="utf-8")
    names = "from datetime import timedelta\nfrom shop import *\n"
    (tmp_path / "test_jobs.py").write_text(names + jobs, encoding="utf-8")
    (tmp_path / "test_workflows.py").write_text(names + workflows, encoding="utf-8")
    assert "4 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_every_page_with_code_is_run_by_a_test() -> None:
    """A page that is not run here is named by the test that runs it."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    with_code = [page for page in PAGES if blocks(page)]
    assert [page for page in with_code if not any(f'{page}"' in text for text in texts)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (GUIDES / page).read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (GUIDES / link).exists()] == []


def commands(page: str) -> list[str]:
    """The lines that begin with `durable`, without comments and redirections."""
    lines = "\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    said = [re.sub(r"\s+[#<].*", "", line.removeprefix("$ ")) for line in lines]
    return [line for line in said if line.startswith("durable ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_is_one(page: str) -> None:
    """Parsed as the program parses it, with every option and argument; not run."""
    for line in commands(page):
        _parse(shlex.split(line)[1:])


def _parse(arguments: list[str]) -> None:
    """Raises the usage error that the program would print."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("durable", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def test_a_wrong_command_is_seen() -> None:
    for wrong in ("durable sygnal o-1", "durable retention sett", "durable pause o-1 --becaus x"):
        with pytest.raises(Exception, match=r"No such (command|option)"):
            _parse(shlex.split(wrong)[1:])
