"""What workflows of other modules call: the scan does not read it, the run-time guard watches it."""

from __future__ import annotations

import os
import threading
from importlib import import_module
from pathlib import Path


def read_file() -> str:
    return Path(__file__).read_text(encoding="utf-8")


def list_folder() -> list[str]:
    return os.listdir(".")  # noqa: PTH208


def start_thread() -> None:
    threading.Thread(target=int).start()


def import_late() -> str:
    text: str = import_module("this_is_imported_late").READ
    return text


class Cleaning:
    def __del__(self) -> None:
        os.listdir(".")  # noqa: PTH208
