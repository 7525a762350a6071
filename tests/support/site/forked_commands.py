"""Runs the commands of one version's code, each in a process that is forked from one that has
loaded its modules: most of a short command's time is loading them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.site.processes import Site

LOOP: Final = """
import json, os, sys
import alembic.command, harness.app.installation, harness.cli.program, harness.store.migrate
from harness.cli.main import main
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in enumerate(order["files"], start=1):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.argv = ["swapgate", *order["words"]]
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush()
            # To clear up what was forked would take longer than most commands.
            os._exit(end.code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class ForkedCommands:
    """Commands on a site by one version's code."""

    place: Site
    process: subprocess.Popen[str]

    def run(self, *words: str, expect: int = 0) -> str:
        """One command, to its end; what it printed on stdout and stderr."""
        files = [self.place.folder / name for name in ("forked.out", "forked.err")]
        whole = ["--config", str(self.place.config), *words]
        order = {"words": whole, "files": [str(file) for file in files]}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        code = self.process.stdout.readline()
        said = "".join(file.read_text(encoding="utf-8") for file in files)
        assert code.strip() == str(expect), f"{words}: {code}\n{said}"
        return said


@contextmanager
def forked_commands(place: Site, code: Path) -> Iterator[ForkedCommands]:
    """code: the folder of the version's code."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", LOOP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=code,
    ) as process:
        yield ForkedCommands(place, process)
        # It ends at the end of its stdin, which leaving the block closes.
