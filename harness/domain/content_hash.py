"""Content hashes name a value by its canonical JSON: equal values have equal names on every
machine.
"""

import json
from hashlib import sha256


def canonical_json(value: object) -> str:
    """Writes `value` as JSON with sorted keys and no spaces. Raises ValueError for NaN and
    infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return sha256(canonical_json(value).encode()).hexdigest()
