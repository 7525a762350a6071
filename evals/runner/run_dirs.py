"""Makes one run's private temporary directory for Inspect's log, and deletes those of killed
runs, as logs hold prompts.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "swapgate-eval-"
IN_USE = "in-use"


@contextlib.contextmanager
def run_dir() -> Iterator[Path]:
    """A folder that only this user can read; it is gone afterwards."""
    clear_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / IN_USE).open("w") as mark:
            # The kernel lets go of it however the process ends.
            fcntl.flock(mark, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_abandoned() -> None:
    """Delete the folders whose process was killed; those in use stay."""
    for mark in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{IN_USE}"):
        # Another user's, or cleared by another run just now.
        with contextlib.suppress(OSError), mark.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent, ignore_errors=True)
