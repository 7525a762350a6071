"""Why a request cannot go to a provider of another protocol, without its content."""

from router.protocols.untranslatable import CODE


class Untranslatable(Exception):
    """What this request asks for has no counterpart there. param: the field, None where it is
    not known.
    """

    code = CODE

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequest(Untranslatable):
    """The request is none in any protocol: OpenAI refuses it too. param: as a path."""

    code = "invalid_value"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"`{param}` {why}", param)
