"""The claims of a provider's JWT say how long it lasts, and fill headers that some providers
want beside it. They are read without checking the signature: the provider checks its own. Pure.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Final

JWT_PARTS: Final = 3
_SENDABLE: Final = re.compile(r"[\x21-\x7e]{1,200}")


def read_claims(token: str) -> Mapping[str, object]:
    """Returns the claims of a token; empty for what is no JWT."""
    parts = token.split(".")
    if len(parts) != JWT_PARTS:
        return {}
    try:
        found = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def claim_headers(token: str, headers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Headers with what stands at each path of the token's claims; without those it lacks."""
    found = {}
    for name, path in headers.items():
        value: object = read_claims(token)
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str) and _SENDABLE.fullmatch(value):
            found[name] = value
    return found


def lifetime_s(token: str) -> float | None:
    """Seconds from a token's issue to its expiry; None where it does not say."""
    claims = read_claims(token)
    begun, ends = claims.get("iat"), claims.get("exp")
    if isinstance(begun, int | float) and isinstance(ends, int | float) and ends > begun:
        return float(ends - begun)
    return None
