"""Server-sent events of providers: `SsePayloads` gives their data by the one parser,
`harness.domain.sse`, and `write_event` writes one.
"""

from harness.domain.reliability.failures import FailureClass
from harness.domain.sse import EventPayloads
from router.request.body_patch import to_json
from router.upstream.failure import UpstreamFailed


class SsePayloads(EventPayloads):
    """Gives the data of each event. `read` raises UpstreamFailed (malformed) for one that is
    too large.
    """

    def _error(self, why: str) -> Exception:
        return UpstreamFailed(FailureClass.MALFORMED, why)


def write_event(kind: str, data: dict[str, object]) -> bytes:
    """Writes an event whose data repeat its `type`, as both Anthropic's and OpenAI's do."""
    return f"event: {kind}\ndata: {to_json({'type': kind, **data})}\n\n".encode()
