"""What a new provider may be called. Pure.

Those of an older version stay as they are: proofs and histories name them.
"""

import re
from typing import Final

from harness.domain.errors import InputError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHOWN: Final = 40


def check_provider_name(name: str) -> None:
    """Raises InputError. No slash and no colon: a name stands before them, as in NAME/MODEL."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name[:_SHOWN]!r} is no name of a provider: take 1 to 63 of a-z, A-Z, 0-9, `-`, "
            "`_` and `.`, a letter or digit first"
        )
