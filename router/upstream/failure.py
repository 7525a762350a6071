"""An upstream failure is an attempt at a provider without a usable answer, with its class and
with what the provider answered, if it did.
"""

from collections.abc import Mapping
from typing import Self

from harness.domain.errors import UpstreamError
from harness.domain.reliability.failures import FailureClass
from router.protocols.untranslatable import Untranslatable
from router.server.replies import error_body


class UpstreamFailed(UpstreamError):
    """An attempt without a usable answer.

    detail: for people and logs; without secrets and without content. status, body,
    content_type, headers: what the provider answered, if it did. stale: a connection that had
    served before ended without a word: most likely it was closed as idle, a moment ago. local:
    it cannot be said in the provider's protocol, so the provider was not asked.
    """

    def __init__(
        self,
        failure: FailureClass,
        detail: str,
        *,
        status: int | None = None,
        body: bytes = b"",
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
        stale: bool = False,
    ) -> None:
        super().__init__(f"{failure.value}: {detail}")
        self.failure = failure
        self.detail = detail
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers: Mapping[str, str] = headers or {}
        self.stale = stale
        self.local = False

    def kept(self) -> Self:
        """Itself, for whoever keeps what was caught, without the frames that it came through.

        Their variables hold the whole request, and this failure: a cycle for each attempt.
        """
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)


def refused_request(why: Untranslatable) -> UpstreamFailed:
    """Builds the failure of a request that its target cannot know: the provider is not
    asked.
    """
    words = f"{why.message}; leave it out, or ask another route"
    body = error_body(words, "invalid_request_error", why.code, param=why.param)
    failed = UpstreamFailed(FailureClass.BAD_REQUEST, why.message, status=422, body=body)
    failed.local = True
    return failed
