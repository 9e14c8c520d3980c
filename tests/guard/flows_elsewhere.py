"""What workflows of other modules call: the scan does not read it, the run-time guard watches it."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def read_file() -> str:
    return Path(__file__).read_text(encoding="utf-8")


def list_folder() -> list[str]:
    return os.listdir(".")


def start_thread() -> None:
    threading.Thread(target=int).start()


def import_late() -> str:
    import this_is_imported_late

    return this_is_imported_late.READ


class Cleaning:
    def __del__(self) -> None:
        os.listdir(".")
