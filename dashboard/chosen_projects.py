"""Remembers in which project each sign-in acts, of people with roles in several
(`ChosenProjects`): in this process, and in a file, so that a restart keeps it.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

FILE: Final = "dashboard-projects.json"
MOST: Final = 1_000  # the oldest go first


class ChosenProjects:
    """Keeps the choices by the id of a session. What a choice allows is asked elsewhere: it
    only says which of his own roles a person uses.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._lock = file, Lock()
        self._chosen = _read(file) if file is not None else {}

    def find(self, session: str) -> str | None:
        with self._lock:
            return self._chosen.get(session)

    def choose(self, session: str, project: str) -> None:
        with self._lock:
            self._chosen.pop(session, None)
            while len(self._chosen) >= MOST:
                self._chosen.pop(next(iter(self._chosen)))
            self._chosen[session] = project
            self._write()

    def forget(self, session: str) -> None:
        with self._lock:
            if self._chosen.pop(session, None) is not None:
                self._write()

    def _write(self) -> None:
        # A full disk keeps nobody from choosing; a restart then forgets it.
        if self._file is not None:
            with suppress(OSError):
                temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
                temporary.write_text(json.dumps(self._chosen), encoding="utf-8")
                temporary.replace(self._file)


def _read(file: Path) -> dict[str, str]:
    """What cannot be read was chosen by nobody."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {session: project for session, project in items if isinstance(project, str)}
