"""What a token says of itself (RFC 7519). Read, not verified: who made it judges. Pure."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Final

JWT_PARTS: Final = 3
_SENDABLE: Final = re.compile(r"[\x21-\x7e]{1,200}")


def read_claims(token: str) -> Mapping[str, object]:
    """Empty for what is no JWT."""
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
    """Seconds from its making to its end; None where it does not say."""
    told = read_claims(token)
    begun, ends = told.get("iat"), told.get("exp")
    if isinstance(begun, int | float) and isinstance(ends, int | float) and ends > begun:
        return float(ends - begun)
    return None
