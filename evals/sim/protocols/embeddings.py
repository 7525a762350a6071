"""Answers `POST /v1/embeddings`: checks the request and hashes words and 3-grams into unit
vectors, so that similar texts get similar ones. Every simulated model embeds alike.
"""

import base64
import math
import re
from array import array
from collections.abc import Mapping
from typing import Any, TypeGuard
from zlib import crc32

from evals.sim import token_count
from evals.sim.protocols.requests import invalid

DIMENSIONS = 256
MOST_DIMENSIONS = 4096
WORD = re.compile(r"\w+")
WORD_WEIGHT = 2.0


def vector(text: str, dimensions: int) -> list[float]:
    """Computes a unit vector by signed feature hashing (Weinberger et al. 2009) of words and
    3-grams.
    """
    sums = [0.0] * dimensions
    for word in WORD.findall(text.lower()) or [text]:
        padded = f" {word} "
        grams = [padded[at : at + 3] for at in range(len(padded) - 2)]
        for feature, weight in [(word, WORD_WEIGHT), *((gram, 1.0) for gram in grams)]:
            bits = crc32(feature.encode())
            sums[(bits >> 1) % dimensions] += weight if bits & 1 else -weight
    length = math.sqrt(sum(x * x for x in sums))
    if length == 0:
        return [1.0, *[0.0] * (dimensions - 1)]
    return [x / length for x in sums]


def parse_inputs(value: Any) -> list[str]:
    """One text per vector; lists of token numbers count as texts of their digits."""
    many = value if isinstance(value, list) and not is_tokens(value) else [value]
    if not many or not all(isinstance(one, str) or is_tokens(one) for one in many):
        invalid("'input' must be a text, a list of texts, or lists of tokens.", "input")
    return [one if isinstance(one, str) else " ".join(map(str, one)) for one in many]


def is_tokens(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(isinstance(n, int) for n in value)


def response(data: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Builds the body that answers `POST /v1/embeddings`. Raises Refused."""
    texts = parse_inputs(data.get("input"))
    dimensions = data.get("dimensions")
    dimensions = DIMENSIONS if dimensions is None else dimensions
    if not isinstance(dimensions, int) or not 1 <= dimensions <= MOST_DIMENSIONS:
        invalid(f"'dimensions' must be from 1 to {MOST_DIMENSIONS}.", "dimensions")
    as_base64 = data.get("encoding_format") == "base64"
    vectors = [vector(text, dimensions) for text in texts]
    count = sum(token_count.estimate(text) for text in texts)
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": n, "embedding": packed(v) if as_base64 else v}
            for n, v in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def packed(values: list[float]) -> str:
    """Little-endian float32 in base64, as the API sends them."""
    floats = array("f", values)
    if array("H", [1]).tobytes() != b"\x01\x00":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
