"""Change references: the number of the change request, in the team's own system, under which a
swap is made (`CHG0012345`). A policy may require one (`ChangeReferenceRule`).
"""

import re
from enum import StrEnum
from typing import Final

from harness.domain.errors import InputError

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}")


class ChangeReferenceRule(StrEnum):
    OPTIONAL = "optional"
    REQUIRED = "required"  # no canary opens without one


def parse_change_reference(text: str) -> str:
    """Returns the reference without the spaces around it; empty for none. Raises InputError."""
    reference = text.strip()
    if reference and not _REFERENCE.fullmatch(reference):
        raise InputError(
            f"{text!r} is no reference of a change request: write one word of at most 64 "
            "letters, digits and . _ : / # -, such as CHG0012345"
        )
    return reference
