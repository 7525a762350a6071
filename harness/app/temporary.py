"""Opens an installation with a database of its own in a given folder, signed with new keys, for
one comparison without a server (`swapgate gate run`).
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.app.database import upgrade_database
from harness.app.eval_workers import open_with_workers
from harness.app.installation import Installation
from harness.domain.errors import InputError
from harness.domain.settings import RunQueueKind
from harness.report.content import DATABASE, FILE, address
from harness.runtime import secret_files, signing_keys


@contextmanager
def temporary_installation(given: Path | None, folder: Path) -> Iterator[Installation]:
    """Opens the configuration's installation, with its state in `folder`. Raises InputError."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FILE).exists():
        raise InputError(f"{folder / FILE} exists already: give --keep an empty folder")
    # The workers are processes of their own, and read this too.
    os.environ[DATABASE] = address(folder)
    os.environ["SWAPGATE__HOME"] = str(folder)
    os.environ["SWAPGATE__CONTROL__QUEUE"] = RunQueueKind.EMBEDDED.value
    os.environ.setdefault("SWAPGATE_SECRET", secrets.token_hex(32))
    installation = open_with_workers(given)
    try:
        signing_keys.create_keys(installation.settings)
        if any(provider.extra_headers for provider in installation.settings.providers.values()):
            secret_files.make_encryption_file(installation.settings)
        upgrade_database(installation.settings)
        yield installation
    finally:
        installation.close()
