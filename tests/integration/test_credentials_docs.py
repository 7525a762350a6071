"""The commands in docs/how-to/credentials.md work as they stand, one after the other."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs/how-to/credentials.md").read_text(encoding="utf-8")
SECRETS = {name: f"gsk-{name.lower()}-0123456789" for name in ("FIRST_KEY", "SECOND_KEY")}


@pytest.mark.verify
@pytest.mark.req("D4")
def test_every_command_works_and_shows_no_value(tmp_path: Path) -> None:
    secrets = {**SECRETS, "SPARE_KEY": "gsk-spare-0123456789"}
    imported = "sk-imported-0123456789"
    (tmp_path / "keys.env").write_text(f"OPENAI_API_KEY={imported}\nOTHER=1\n")
    commands = "".join(re.findall(r"```sh\n(.*?)```", DOCS, flags=re.DOTALL))

    done = subprocess.run(  # noqa: S603 - the documented commands are what is tried
        ["bash", "-euo", "pipefail", "-c", f"{commands}\nswapgate provider key list --json"],  # noqa: S607
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "ENV_FILE": "keys.env",
            **secrets,
        },
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert "openai    OPENAI_API_KEY  stored" in done.stdout
    written = done.stdout + done.stderr
    assert not any(secret in written for secret in (*secrets.values(), imported))
    file = tmp_path / ".swapgate/encryption.keys"
    assert (file.stat().st_mode & 0o777, len(file.read_text().split())) == (0o600, 2)
    with sqlite3.connect(tmp_path / ".swapgate/swapgate.db") as db:
        rows = dict(db.execute("SELECT provider || '/' || name, ciphertext FROM credential"))
    assert {name: bool(text) for name, text in rows.items()} == {
        "groq/default": False,
        "groq/default.old": False,
        "groq/spare": False,
        "openai/default": True,
    }
