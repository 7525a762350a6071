"""The simulator's text endpoints, by path, and the answers of `POST /v1/embeddings`: words and
3-grams hashed into unit vectors, so that similar texts get similar ones from every model.
"""

import base64
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from evals.sim import simulated_model
from evals.sim.protocols import chat_completions, messages, responses
from evals.sim.protocols.chat_completions import (
    ChatRequest,
    Completion,
    Refused,
    error_body,
    invalid,
    parse_chat,
)


@dataclass(frozen=True)
class EndpointDialect:
    parse: Callable[[Mapping[str, Any]], ChatRequest]  # raises Refused
    body: Callable[[Completion], dict[str, Any]]
    # Its first event, one for each piece of content, its last.
    stream: Callable[[Completion, ChatRequest], list[bytes]]
    error: Callable[[Refused], dict[str, Any]] = error_body
    # An error's body as the last event of a stream.
    error_event: Callable[[Mapping[str, Any]], bytes] = chat_completions.event
    ping: bytes = b": ping\n\n"  # says nothing


CHAT = EndpointDialect(parse_chat, chat_completions.body, chat_completions.stream)
DIALECTS: Mapping[str, EndpointDialect] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": EndpointDialect(
        responses.parse, responses.body, responses.stream, error_event=responses.error_event
    ),
    "/v1/messages": EndpointDialect(
        messages.parse, messages.body, messages.stream, messages.error, ping=messages.PING
    ),
}


DIMENSIONS = 256
MOST_DIMENSIONS = 4096
WORD = re.compile(r"\w+")


def vector(text: str, dimensions: int) -> list[float]:
    """Computes a unit vector by signed feature hashing (Weinberger et al. 2009)."""
    sums = [0.0] * dimensions
    for word in WORD.findall(text.lower()) or [text]:
        padded = f" {word} "
        grams = [padded[at : at + 3] for at in range(len(padded) - 2)]
        for feature in (word, word, *grams):  # a word weighs as much as two of its 3-grams
            bits = crc32(feature.encode())
            sums[(bits >> 1) % dimensions] += 1.0 if bits & 1 else -1.0
    length = math.hypot(*sums)
    return [x / length for x in sums] if length else [1.0, *[0.0] * (dimensions - 1)]


def embeddings_body(data: Mapping[str, Any], *, model: str) -> dict[str, Any]:
    """Builds the body that answers `POST /v1/embeddings`. Raises Refused."""
    given = data.get("input")
    # Token numbers count as texts of their digits.
    tokens = isinstance(given, list) and all(isinstance(n, int) for n in given)
    many = [given] if isinstance(given, str) or (given and tokens) else given
    if not isinstance(many, list) or not many:
        invalid("'input' must be a text, a list of texts, or lists of tokens.", "input")
    texts = [one if isinstance(one, str) else " ".join(map(str, one)) for one in many]
    size = DIMENSIONS if data.get("dimensions") is None else data["dimensions"]
    if not isinstance(size, int) or not 1 <= size <= MOST_DIMENSIONS:
        invalid(f"'dimensions' must be from 1 to {MOST_DIMENSIONS}.", "dimensions")
    vectors: list[Any] = [vector(text, size) for text in texts]
    if data.get("encoding_format") == "base64":  # little-endian float32, as the API sends them
        packed = (struct.pack(f"<{size}f", *values) for values in vectors)
        vectors = [base64.b64encode(one).decode() for one in packed]
    count = sum(map(simulated_model.count_tokens, texts))
    rows = [{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(vectors)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "model": model, "data": rows, "usage": usage}
