"""Content hashes name what they are made of, alike on every machine: a value by its canonical
JSON (`digest`), a text or a file's bytes (`hash_content`), and in a few bytes what has to be
spread or told apart (`short_hash`).

Hashes with a secret, and the two of every request (`routing.table`,
`request.client_directives`), are with their subject.
"""

import json
from hashlib import blake2b, sha256
from typing import Final


def canonical_json(value: object) -> str:
    """Writes `value` as JSON with sorted keys and no spaces. Raises ValueError for NaN and
    infinity.
    """
    return _CANONICAL.encode(value)


# Built once: `json.dumps` would build one for each value.
_CANONICAL: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def digest(value: object) -> str:
    """Computes the SHA-256 of the value's canonical JSON: 64 hexadecimal digits."""
    return sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def hash_content(content: bytes | str) -> str:
    """Computes the SHA-256 of bytes, or of a text as UTF-8: 64 hexadecimal digits."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return sha256(data).hexdigest()


def short_hash(text: str, size: int = 8) -> bytes:
    """Computes the BLAKE2b hash of a text, `size` bytes long. Not hash(): Python salts it per
    process, and two would disagree.
    """
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
