"""Reads one attempt's reply: a refusal as a failure, or a whole answer, whose content type and
body are checked and whose `model` becomes the route's name (`UpstreamAnswer`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.domain.errors import InputError
from harness.domain.reliability.failures import FailureClass
from router.conversation.call_ids import AnswerIds
from router.frame.body_patch import to_json
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import (
    ParsedObject,
    TextEdit,
    apply_edits,
    member_edit,
    parse_object,
)
from router.frame.replies import Header, passed_on
from router.protocols.chat.dialect import ChatDialect
from router.protocols.event_stream import Irregularity
from router.protocols.provider_failures import refusal_failure
from router.protocols.usage import TokenUsage
from router.upstream.reply_reading import read_error_body
from router.upstream.transport import UpstreamReply


@dataclass(slots=True)
class UpstreamAnswer:
    """A whole answer, with `model` as the route's name."""

    status: int
    headers: list[Header]
    body: bytes
    usage: TokenUsage | None
    members: ParsedObject  # as it was parsed
    model: str = ""  # the provider's, or empty
    dropped: tuple[str, ...] = ()  # dropped, refused, opening_s: as `UpstreamReply` has them
    refused: tuple[str, ...] = ()
    irregularity: str | None = None  # of its end
    opening_s: float = 0.0


async def read_refusal(reply: UpstreamReply) -> UpstreamFailed:
    body = await read_error_body(reply)
    told = {name.decode("latin-1"): decode_header(value) for name, value in reply.headers}
    failed = refusal_failure(reply.status, body, told.get("content-type", ""), told)
    failed.local = reply.local
    return failed


def check_content_type(headers: Sequence[Header], content_type: bytes) -> None:
    """Checks the content type. Raises UpstreamFailed. headers: names in lower case."""
    found = dict(headers).get(b"content-type", b"")
    if _media_type(found) != content_type:
        said = f"content type {decode_header(found)[:60]!r} instead of {content_type.decode()}"
        raise UpstreamFailed(FailureClass.MALFORMED, said)


async def read_answer(
    reply: UpstreamReply,
    json_name: str | None,
    dialect: ChatDialect,
    request_body: str,
    *,
    silence: bool,
) -> UpstreamAnswer:
    """The whole body, `model` replaced if there is a name. request_body: the client's. silence:
    as `checked` has it.

    Raises UpstreamFailed for what is no answer.
    """
    body = await reply.body()
    answer = parse_answer(
        reply.status, reply.headers, body, json_name, dialect, request_body, silence=silence
    )
    answer.dropped = reply.dropped
    answer.refused = reply.refused
    answer.opening_s = reply.opening_s
    if reply.unended:
        answer.irregularity = Irregularity.NO_FINISH_REASON
    return answer


def parse_answer(
    status: int,
    headers: Sequence[Header],
    body: bytes,
    json_name: str | None,
    dialect: ChatDialect,
    request_body: str,
    *,
    silence: bool = False,
) -> UpstreamAnswer:
    """Reads the answer as `read_answer` does, from a body that is here."""
    try:
        members = parse_object(body)
    except InputError as error:
        raise UpstreamFailed(FailureClass.MALFORMED, f"answer is not valid: {error}") from None
    usage = dialect.checked(members, silence=silence)
    edits: list[TextEdit] = []
    # In text: the same search in bytes takes three times as long.
    if dialect.call_mark in members.text or not members.found.get("id", True):
        answer = dict(members.found)
        changed = AnswerIds(request_body).mend(answer)
        edits = [member_edit(members, name, to_json(answer[name])) for name in changed]
    named = None
    if json_name is not None and not edits:
        named = members.with_text("model", json_name)
    if named is not None:
        body = named
    elif edits or json_name is not None:
        body = apply_edits(members.text, [*edits, *_model_edits(members, json_name)])
    model = members.get("model")
    if not isinstance(model, str):
        model = ""
    irregularity = dialect.irregularity(members)
    return UpstreamAnswer(
        status, passed_on(headers), body, usage, members, model, irregularity=irregularity
    )


def _model_edits(members: ParsedObject, json_name: str | None) -> list[TextEdit]:
    model = members.text_place("model") if json_name is not None else None
    return [TextEdit(model.start, model.end, json_name)] if model and json_name else []


@lru_cache(maxsize=256)
def _media_type(content_type: bytes) -> bytes:
    return content_type.split(b";", 1)[0].strip().lower()


def decode_header(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
