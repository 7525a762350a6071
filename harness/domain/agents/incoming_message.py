"""An incoming message is what a client sends to a session: a user's text and images, or the
result of a function that the model asked the client to run. It is refused, with one clear
reason, where it is malformed or the conversation has no place for it. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from harness.domain.agents.message import MessageRole, MessageToolCall
from harness.domain.errors import Conflict, InputError

Content = str | tuple[Mapping[str, object], ...]
MAX_PARTS: Final = 256
IMAGE_DATA: Final = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
DETAILS: Final = ("auto", "low", "high")
USER_ROLES: Final = (MessageRole.USER, MessageRole.TOOL)


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A client's message whose form is right."""

    role: MessageRole
    content: Content
    response_to: str = ""  # of a tool's message, the id of the call that it answers


def parse_incoming(role: str, content: object, response_to: str = "") -> IncomingMessage:
    """Parses a client's message. Raises InputError, naming the field, for a role that a client
    may not send, content of another form, and a tool's result that names no call.
    """
    if role not in USER_ROLES:
        raise InputError(
            f"role: {role[:40]!r} is not allowed here; send {' or '.join(USER_ROLES)}",
            code="role_not_allowed",
        )
    if role != MessageRole.TOOL:
        if response_to:
            raise InputError("toolCallId: only a message of the role tool answers a call")
        return IncomingMessage(MessageRole(role), parse_content(content))
    if not response_to:
        raise InputError("toolCallId: a message of the role tool names the call it answers")
    if not isinstance(content, str):
        raise InputError("content: the result of a tool is a text")
    return IncomingMessage(MessageRole.TOOL, content, response_to)


def parse_content(content: object) -> Content:
    """A text, or parts of the types `text` and `image_url`. Raises InputError for an empty one
    and for other forms, naming the part.
    """
    if isinstance(content, str):
        if not content.strip():
            raise InputError(
                "content: it is empty; send a text, or parts of text and image_url"
            )
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InputError("content: it is neither a text nor a list of parts")
    if not content or len(content) > MAX_PARTS:
        raise InputError(f"content: a list has 1 to {MAX_PARTS} parts, not {len(content)}")
    return tuple(_parse_part(part, f"content[{number}]") for number, part in enumerate(content))


def _parse_part(part: object, place: str) -> Mapping[str, object]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind not in ("text", "image_url"):
        raise InputError(f"{place}: a part is an object with the type text or image_url")
    if unknown := sorted(str(name) for name in part.keys() - {"type", kind}):
        raise InputError(f"{place}: the type {kind} has no field {unknown[0][:40]!r}")
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str) or not text:
            raise InputError(f"{place}.text: a text is needed")
        return {"type": "text", "text": text}
    return {"type": "image_url", "image_url": _parse_image(part.get("image_url"), place)}


def _parse_image(image: object, place: str) -> Mapping[str, object]:
    if not isinstance(image, Mapping) or not isinstance(url := image.get("url"), str):
        raise InputError(
            f'{place}.image_url: an object is needed, such as {{"url": "https://…"}}'
        )
    if unknown := sorted(str(name) for name in image.keys() - {"url", "detail"}):
        raise InputError(f"{place}.image_url: there is no field {unknown[0][:40]!r}")
    if not _is_image_url(url):
        raise InputError(
            f"{place}.image_url.url: send an https address, or a PNG, JPEG, GIF or WebP as "
            "data:image/png;base64,…"
        )
    detail = image.get("detail")
    if detail is not None and detail not in DETAILS:
        raise InputError(f"{place}.image_url.detail: it is one of {', '.join(DETAILS)}")
    return {"url": url} if detail is None else {"url": url, "detail": detail}


def _is_image_url(url: str) -> bool:
    if url.startswith("data:"):
        return IMAGE_DATA.fullmatch(url) is not None
    try:
        parts = urlsplit(url)
        return url.isprintable() and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def check_place(incoming: IncomingMessage, open_calls: Sequence[MessageToolCall]) -> None:
    """Checks that a message fits at the end of the conversation. Raises InputError for a result
    of an unknown call, Conflict for another message while calls are open. open_calls: of the
    last answer, those that the client is to answer.
    """
    waiting = ", ".join(call.id for call in open_calls)
    if incoming.role is MessageRole.TOOL:
        if incoming.response_to not in {call.id for call in open_calls}:
            raise InputError(
                f"toolCallId: no open call has the id {incoming.response_to[:80]!r}; "
                + (f"open are: {waiting}" if waiting else "none is open"),
                code="unknown_tool_call",
            )
    elif open_calls:
        raise Conflict(
            f"the last answer waits for the results of {waiting}; send each as a message of "
            "the role tool first",
            code="tool_results_missing",
        )
