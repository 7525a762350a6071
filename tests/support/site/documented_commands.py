"""Runs the commands of a page of the docs in their order, with free ports."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.site.processes import free_port

DOCS = Path(__file__).parents[3] / "docs"
USUAL_PORTS = ("8080", "8081", "8085", "8501", "9000", "9090")
# What a reader does after "once they answer".
UNTIL_UP = "\n".join(
    f"until curl -sf http://127.0.0.1:{path} >/dev/null; do sleep 0.2; done"
    for path in ("8080/readyz", "8081/readyz", "8501/_stcore/health")
)
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)


def shell_blocks(page: str) -> list[str]:
    """The blocks of commands of docs/`page`. `console` and `text` are only to be read."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [textwrap.dedent(block) for block in BLOCK.findall(text)]


def run_in_bash(commands: str, **environment: str) -> str:
    """What the commands say, which all have to succeed."""
    done = subprocess.run(  # noqa: S603 - the documented commands are what is tried
        ["/bin/bash", "-euo", "pipefail", "-c", commands],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@dataclass
class DocumentedCommands:
    """The commands of a page, changed only where a test's machine needs it.

    changes: a piece of text that the page must have, and what a test runs in its place.
    before, after: commands for what the page takes to be there, and for a look at what it made.
    """

    page: str
    folder: Path
    before: str = ""
    after: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, str] = field(
        default_factory=lambda: {port: str(free_port()) for port in USUAL_PORTS}
    )

    def script(self) -> str:
        written = "\n".join(shell_blocks(self.page))
        for given, instead in self.changes.items():
            assert given in written, f"docs/{self.page} no longer has: {given}"
            written = written.replace(given, instead)
        begin = f"set -euo pipefail\ncd {self.folder}"
        whole = f"{begin}\n{self.before}\n{written}\n{self.after}"
        for usual, free in self.ports.items():
            whole = whole.replace(usual, free)
        return whole

    def run(self, *, timeout_s: float = 300, **environment: str) -> str:
        log = self.folder / "log.txt"
        with log.open("wb") as out:
            shell = subprocess.Popen(  # noqa: S603 - the documented commands are what is tried
                ["/bin/bash", "-c", self.script()],
                stdout=out,
                stderr=out,
                env={**self._environment(), **environment},
                start_new_session=True,
            )
            try:
                code = shell.wait(timeout=timeout_s)
            finally:
                # The shell's background jobs are in its process group, and in nobody else's.
                self._end(shell.pid)
        text = log.read_text(encoding="utf-8", errors="replace")
        assert code == 0, text[-6000:]
        return text

    def _environment(self) -> Mapping[str, str]:
        parts = ("ROUTER", "CONTROL", "AGENTS", "UI")
        by_part = dict(zip(parts, USUAL_PORTS, strict=False))
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            **{f"SWAPPROOF__{part}__PORT": self.ports[port] for part, port in by_part.items()},
        }

    def _end(self, group: int) -> None:
        try:
            os.killpg(group, signal.SIGTERM)
        except ProcessLookupError:
            return
