"""The embeddings dialect patches the model alone, and checks the answer's vectors."""

import base64
import math
import sys
from array import array
from collections.abc import Sequence
from typing import Final

from harness.domain.reliability.failures import FailureClass
from harness.domain.routing.capabilities import Endpoint
from harness.domain.routing.target import Target
from router.frame.body import ClientRequest
from router.frame.body_patch import model_edit
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject, apply_edits
from router.frame.object_lists import first_object
from router.protocols.chat.dialect import ChatDialect
from router.protocols.event_stream import Irregularity
from router.protocols.usage import TokenUsage, read_usage

_NUMBERS: Final = frozenset({int, float})


class EmbeddingsDialect(ChatDialect):
    """Speaks the protocol of embeddings, which has no streams and no conversations."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint.EMBEDDINGS
        self.path = "/embeddings"

    def opening(self, request: ClientRequest, skipped: int = 0) -> list[object]:  # noqa: ARG002 - there is none
        return []

    def patched(
        self,
        request: ClientRequest,
        target: Target,
        *,
        serialize_tools: bool = False,  # noqa: ARG002 - there are none
    ) -> bytes:
        return apply_edits(request.text, [model_edit(request, target)])

    def checked(self, members: ParsedObject, *, silence: bool = False) -> TokenUsage | None:  # noqa: ARG002 - a Dialect
        first_object(members, "data")
        return read_usage(members.get("usage"))

    def irregularity(self, members: ParsedObject) -> Irregularity | None:  # noqa: ARG002 - a Dialect
        return None

    def check_vectors(self, request: ClientRequest, members: ParsedObject) -> None:
        """Checks them. Raises UpstreamFailed: half an index of wrong vectors is found late."""
        data = members.get("data")
        vectors = data if isinstance(data, list) else []
        wanted = _inputs(request.value("input"))
        if wanted is not None and len(vectors) != wanted:
            raise _malformed(f"{len(vectors)} vectors for {wanted} inputs")
        places, dimensions, kinds = set[int](), set[int](), set[type]()
        for at, vector in enumerate(vectors):
            if not isinstance(vector, dict):
                raise _malformed(f"vector {at} is no object")
            # Some servers leave it out; then the order is all there is.
            place = vector.get("index", at)
            if type(place) is not int:
                raise _malformed(f"the index of vector {at} is no whole number")
            places.add(place)
            dimensions.add(_dimension(vector.get("embedding"), at))
            kinds.add(type(vector.get("embedding")))
        if places != set(range(len(vectors))):
            raise _malformed("the indices are not those of the inputs, once each")
        if len(dimensions) != 1 or len(kinds) != 1:
            raise _malformed("the vectors differ in dimension, or in how they are written")
        asked, found = request.value("dimensions"), dimensions.pop()
        if type(asked) is int and asked != found:
            raise _malformed(f"vectors of {found} dimensions, and {asked} were asked for")


def _inputs(value: object) -> int | None:
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        return None
    # A list of token numbers is one text.
    return 1 if type(value[0]) is int else len(value)


def _dimension(vector: object, at: int) -> int:
    values: Sequence[float]
    if isinstance(vector, str):
        values = _unpacked(vector, at)
    elif isinstance(vector, list):
        values = vector
    else:
        raise _malformed(f"vector {at} is neither a list nor base64")
    if not values:
        raise _malformed(f"vector {at} is empty")
    # All at native speed. true is a number to Python.
    finite = _NUMBERS.issuperset(map(type, values))
    try:
        # A sum beyond all numbers may still be of finite ones.
        finite = finite and (math.isfinite(sum(values)) or all(map(math.isfinite, values)))
    except OverflowError:
        finite = False
    if not finite:
        raise _malformed(f"vector {at} holds what is no finite number")
    return len(values)


def _unpacked(text: str, at: int) -> Sequence[float]:
    try:
        found = array("f", base64.b64decode(text, validate=True))
    except ValueError:
        raise _malformed(f"vector {at} is no float32 in base64") from None
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _malformed(why: str) -> UpstreamFailed:
    return UpstreamFailed(FailureClass.MALFORMED, why)


EMBEDDINGS: Final = EmbeddingsDialect()
