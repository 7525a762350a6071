"""What has no place in the other protocol, and may not be dropped."""

from harness.domain.reliability.failures import FailureClass
from router.server.replies import error_body
from router.upstream.transport import UpstreamFailed

CODE = "not_supported_by_target"
KIND = "invalid_request_error"


class UntranslatableField(UpstreamFailed):
    """what: as the client wrote it, e.g. "a tool of type 'web_search_20250305'". param: the
    field of the body that it is in.
    """

    def __init__(self, what: str, param: str) -> None:
        detail = f"{what} cannot be said in the protocol of the route's target"
        body = error_body(
            f"{detail}; leave it out, or ask another route", KIND, CODE, param=param
        )
        super().__init__(FailureClass.BAD_REQUEST, detail, status=422, body=body)


def untranslatable_error(held: str) -> UntranslatableField:
    """held: as a bridge says what it cannot carry: a field in backquotes, else a tool."""
    return UntranslatableField(held, held.strip("`") if held.startswith("`") else "tools")
