"""Writes vectors in the encoding that the client asked for.

OpenAI's libraries ask for base64 by default, and the one for .NET reads nothing else. Many
servers answer with lists of numbers all the same, which the library for Node decodes into
wrong vectors: https://github.com/openclaw/openclaw/pull/59048.
"""

import base64
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

BASE64: Final = "base64"
_FLOAT: Final = (None, "float")


def encode_vectors(
    vectors: Sequence[Mapping[str, Any]], encoding: object
) -> list[dict[str, Any]] | None:
    """Returns the vectors in another encoding; None if they have the right one.

    Args:
        vectors: an answer's `data`, checked and alike.
        encoding: the request's `encoding_format`. Other encodings than base64 and numbers stay
            as the provider sent them.
    """
    is_text = isinstance(vectors[0]["embedding"], str)
    if is_text and encoding in _FLOAT:
        return [{**v, "embedding": unpack(v["embedding"]).tolist()} for v in vectors]
    if is_text or encoding != BASE64:
        return None
    packed = [_pack(vector["embedding"]) for vector in vectors]
    if None in packed:
        return None
    return [{**v, "embedding": text} for v, text in zip(vectors, packed, strict=True)]


def unpack(text: str) -> "array[float]":
    """Decodes float32 numbers, little-endian, from base64. Raises ValueError."""
    return _swapped(array("f", base64.b64decode(text, validate=True)))


def _pack(values: Sequence[float]) -> str | None:
    """Encodes numbers as float32; None if a number is too large for it."""
    numbers = array("f", values)
    if not all(map(math.isfinite, numbers)):
        return None
    return base64.b64encode(_swapped(numbers).tobytes()).decode()


def _swapped(numbers: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
