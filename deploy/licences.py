"""Writes licences.md, the licences of what Swapproof installs, from the packages' own metadata:
`python -m deploy.licences`.

What the lock has for other systems only is not installed here, so its licence was not read.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("licences.md")
LOCK: Final = FILE.parents[1] / "requirements" / "runtime.lock"
LOCKED: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
# Its metadata names none; the file LICENSE in its wheel is this one.
READ_BY_HAND: Final = {"agent-client-protocol": "Apache-2.0"}
NOT_READ: Final = "not read: for other systems only"
HEADER: Final = """\
# Licences of what Swapproof installs

<!-- Written by `python -m deploy.licences`; do not edit. -->

The packages of `requirements/runtime.lock` with the licence that each one's metadata names.
Swapproof itself is under Apache-2.0. Three packages are under the LGPL (`psycopg` and its
parts, unchanged and replaceable), and two under the MPL-2.0, in part or whole, unchanged as
well.

"""


def locked_packages() -> list[tuple[str, str]]:
    """Each package of the lock with its version."""
    return LOCKED.findall(LOCK.read_text(encoding="utf-8"))


def licence(package: str) -> str:
    """Names the package's licence: by its expression, else its classifiers, else its text."""
    try:
        known = metadata(package).json
    except PackageNotFoundError:
        return NOT_READ
    classified = [
        classifier.rpartition(" :: ")[2]
        for classifier in known.get("classifier", ())
        if classifier.startswith("License :: ")
    ]
    text = str(known.get("license", "")).strip().partition("\n")[0]
    return (
        str(known.get("license_expression", ""))
        or "; ".join(classified)
        or text
        or READ_BY_HAND.get(package, "unknown")
    )


def dump_licences() -> str:
    """Writes the list: a line for each licence, with its packages and their versions."""
    packages: dict[str, list[str]] = {}
    for package, version in locked_packages():
        packages.setdefault(licence(package), []).append(f"{package} {version}")
    lines = (f"- {name}: {', '.join(packages[name])}\n" for name in sorted(packages))
    return HEADER + "".join(lines)


if __name__ == "__main__":
    FILE.write_text(dump_licences(), encoding="utf-8")
