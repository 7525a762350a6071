"""Errors for what a translation cannot carry: `Untranslatable` where a request has no
counterpart in the other protocol, `MalformedRequest` where it is none in any.
"""

from typing import Final

REFERENCE: Final = "`item_reference`"
# What a client does that has a conversation kept at its provider.
SEND_ALL: Final = (
    "send the whole history as `input`, with `store: false` "
    "(Vercel's SDK: providerOptions.openai.store)"
)


class Untranslatable(Exception):
    """What this request asks for has no counterpart there. param: the field, None where it is
    not known.
    """

    code = "not_supported_by_target"

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequest(Untranslatable):
    """The request is none in any protocol: OpenAI refuses it too. param: as a path."""

    code = "invalid_value"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"`{param}` {why}", param)


def no_chat_error(what: str, param: str) -> Untranslatable:
    """Builds the error for what no chat can carry. what: as the client wrote it, e.g. "a tool
    of type 'web_search_20250305'". param: the field of the body that it is in.
    """
    return Untranslatable(f"{what} cannot be said in the protocol of the route's target", param)


def reference_error() -> Untranslatable:
    """Builds the error for an item by whose id alone its provider knows it."""
    return Untranslatable(f"{REFERENCE} names what another provider keeps: {SEND_ALL}", "input")


def untranslatable_error(held: str) -> Untranslatable:
    """Builds the error for what a translation cannot carry. held: as a bridge says what it
    cannot carry: a field in backquotes, else a tool.
    """
    if held == REFERENCE:
        return reference_error()
    return no_chat_error(held, held.strip("`") if held.startswith("`") else "tools")
