"""What is in the wheel and the sdist, and that an installation of either, or an editable one, finds its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIGRATIONS = sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))

LOOK = """
import json, durable, durable_worker
from importlib.metadata import entry_points
from pathlib import Path
from durable.store.migrate import load, migrations_dir
print(json.dumps({
    "durable": durable.__file__,
    "migrations_dir": str(migrations_dir()),
    "migrations": [migration.id + ".sql" for migration in load()],
    "scripts": {e.name: e.value for e in entry_points(group="console_scripts") if e.name.startswith("durable")},
    "queries": sorted(p.name for p in (Path(durable.__file__).parent / "store").glob("*.sql")),
}))
"""


def build(source: Path, kind: str, target: Path) -> Path:
    """Build with the project's own backend, in this environment, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = (path for path in target.iterdir() if path.suffix in {".whl", ".gz"})
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel_of_sdist(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return build(source, "wheel", tmp_path_factory.mktemp("wheel_of_sdist"))


class Environment:
    """A virtual environment that sees this one's dependencies, but has its own durable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        venv.create(folder, with_pip=False, symlinks=True)
        paths = os.pathsep.join(path for path in sys.path if "site-packages" in path)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text("\n".join(paths.split(os.pathsep)))

    def install(self, *what: str) -> None:
        options = [
            "--no-deps",
            "--no-build-isolation",
            "--force-reinstall",
            "--no-index",
            "--quiet",
        ]
        self.run("-m", "pip", "install", *options, *what)

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        environment = {
            k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}
        }
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_s_top_level_is_the_two_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert tops == {"durable", "durable_worker", "durable-0.1.0.dist-info"}


def test_the_wheel_has_every_migration_and_query(wheel: Path) -> None:
    inside = set(names(wheel))
    assert MIGRATIONS
    assert {f"durable/migrations/{name}" for name in MIGRATIONS} <= inside
    queries = {str(path.relative_to(ROOT)) for path in (ROOT / "durable").rglob("*.sql")}
    assert queries <= inside


def test_the_wheel_says_that_it_is_typed(wheel: Path) -> None:
    assert {"durable/py.typed", "durable_worker/py.typed"} <= set(names(wheel))


def test_the_wheel_has_nothing_left_over(wheel: Path) -> None:
    assert [
        name for name in names(wheel) if "__pycache__" in name or name.startswith("tests")
    ] == []


def test_the_sdist_builds_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    assert sorted(names(wheel_of_sdist)) == sorted(names(wheel))


def test_installed_from_the_wheel(wheel: Path, environment: Environment) -> None:
    environment.install(str(wheel))
    seen = json.loads(environment.run("-c", LOOK))
    assert Path(seen["durable"]).is_relative_to(environment.folder)
    assert Path(seen["migrations_dir"]) == Path(seen["durable"]).parent / "migrations"
    assert seen["migrations"] == MIGRATIONS
    assert seen["queries"]
    assert seen["scripts"] == {
        "durable": "durable.cli:main",
        "durable-worker": "durable_worker.main:main",
    }
    for script in ("durable", "durable-worker"):
        assert (environment.folder / "bin" / script).exists()


def test_installed_editable(environment: Environment, tmp_path: Path) -> None:
    environment.install("-e", str(ROOT))
    seen = json.loads(environment.run("-c", LOOK, cwd=tmp_path))
    assert seen["durable"] == str(ROOT / "durable" / "__init__.py")
    assert (seen["migrations_dir"], seen["migrations"]) == (str(ROOT / "migrations"), MIGRATIONS)
    assert seen["queries"]


def test_without_libpq_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['psycopg'] = None\nimport durable.store"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "pip install 'durable[binary]'" in done.stderr.splitlines()[-1]
