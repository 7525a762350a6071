"""The opening digest names a conversation by its opening: the hash of the opening's JSON, which
has the same value for ever, in every process. What a conversation says next leaves it as it is,
so a worker keeps those of long openings, and finds them by Python's own hash.
"""

import json
from collections.abc import Hashable
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from router.recording.bounded_map import BoundedMap

# Of the request's text: below, the digest costs little more than finding it.
LONG_CHARS: Final = 16 * 1024
KEPT: Final = 1024
_DIGEST_BYTES: Final = 16
# What stands in JSON as it is, and what its short escapes stand for.
_PLAIN: Final = bytes(b for b in range(0x20, 0x7F) if b not in b'"\\')
_SHORT: Final = (
    (b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"),
)  # fmt: skip
_SHORTENED: Final = b"".join(character for character, _ in _SHORT)

# By Python's hash, which is keyed in each process, of 64 bits: nobody can choose two openings
# that share one. If two did, their conversations would share an arm.
_known: BoundedMap[int, str] = BoundedMap(KEPT)


def opening_digest(opening: list[object], text_chars: int) -> str:
    """The digest of an opening (`conversation_opening`), in hexadecimal. text_chars: of the
    request.
    """
    if text_chars < LONG_CHARS:
        return blake2b(_short_json(opening), digest_size=_DIGEST_BYTES).hexdigest()
    try:
        key = hash(_hashable(opening))
    except TypeError:
        return blake2b(opening_json(opening), digest_size=_DIGEST_BYTES).hexdigest()
    digest = _known.get(key)
    if digest is None:
        digest = blake2b(opening_json(opening), digest_size=_DIGEST_BYTES).hexdigest()
        _known.put(key, digest)
    return digest


def _short_json(opening: list[object]) -> bytes:
    """What `json.dumps` writes of a short opening, in fewer steps."""
    parts = []
    for part in opening:
        role, said = part if isinstance(part, tuple) and len(part) == 2 else ("", part)
        if role and (said is None or isinstance(said, str)):
            text = "null" if said is None else quoted(said)
            parts.append(f"[{quoted(role)}, {text}]")
        else:
            parts.append(json.dumps(part))
    return f"[{', '.join(parts)}]".encode()


def _hashable(value: object) -> Hashable:
    """The same for the same JSON alone. Raises TypeError for a number or a boolean: Python
    takes 1, 1.0 and true for one.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return 0, tuple((name, _hashable(member)) for name, member in value.items())
    raise TypeError(f"{type(value).__name__} has the hash of others")


def opening_json(opening: list[object]) -> bytes:
    """What `json.dumps` writes of it, sooner where its texts are ASCII."""
    parts = []
    for part in opening:
        if isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], str):
            role = json.dumps(part[0]).encode()
            parts.append(b"[%b, %b]" % (role, _string(part[1])))
        else:
            parts.append(json.dumps(part).encode())
    return b"[%b]" % b", ".join(parts)


def _string(text: str) -> bytes:
    if text.isascii():
        written = text.encode()
        others = written.translate(None, _PLAIN)
        if not others.strip(_SHORTENED):
            if others:
                for character, escape in _SHORT:
                    written = written.replace(character, escape)
            return b'"%b"' % written
    return json.dumps(text).encode()
