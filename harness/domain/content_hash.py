"""Content addresses: the same content has the same name, on every machine and in every year."""

import json
from hashlib import sha256


def canonical_json(value: object) -> str:
    """`value` as JSON, keys sorted, no spaces. Raises ValueError for NaN and infinity."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return sha256(canonical_json(value).encode()).hexdigest()
