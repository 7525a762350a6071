"""One attempt: send, read, check that the answer is what was asked."""

from typing import NamedTuple

from harness.domain.errors import InputError
from harness.domain.reliability.failures import FailureClass
from router.protocols.dialect import Dialect
from router.protocols.provider_failures import refused
from router.protocols.usage import Usage
from router.request.json_spans import Edit, Members, read, spliced
from router.server.replies import passed_on
from router.snapshot.compiled import Header
from router.upstream.error_body import refusal_words
from router.upstream.transport import UpstreamFailed, UpstreamReply, dropped, unended


class Answer(NamedTuple):
    """A whole answer, with `model` as the route's name. members: as it was parsed.

    model: the provider's, or empty. dropped: as `ports.dropped` has it. ended: it says why.
    """

    status: int
    headers: list[Header]
    body: bytes
    usage: Usage | None
    members: Members
    model: str = ""
    dropped: tuple[str, ...] = ()
    ended: bool = True


async def refusal_of(reply: UpstreamReply) -> UpstreamFailed:
    """What a reply says that is not 2xx."""
    body = await refusal_words(reply)
    told = {name.decode("latin-1"): text(value) for name, value in reply.headers}
    return refused(reply.status, body, told.get("content-type", ""), told)


def check_type(reply: UpstreamReply, content_type: bytes) -> None:
    """Raises UpstreamFailed for another content type."""
    found = dict(reply.headers).get(b"content-type", b"")
    if found.split(b";", 1)[0].strip().lower() != content_type:
        said = f"content type {text(found)[:60]!r} instead of {content_type.decode()}"
        raise UpstreamFailed(FailureClass.MALFORMED, said)


async def read_answer(reply: UpstreamReply, json_name: str | None, dialect: Dialect) -> Answer:
    """The whole body, `model` replaced if there is a name.

    Raises UpstreamFailed for what is no answer.
    """
    body = await reply.body()
    try:
        members = read(body)
    except InputError as error:
        raise UpstreamFailed(FailureClass.MALFORMED, f"answer is not valid: {error}") from None
    usage = dialect.checked(members)
    model = members.text_place("model")
    if json_name is not None and model is not None:
        body = spliced(members.text, [Edit(model.start, model.end, json_name)])
    named = model.value if model is not None and isinstance(model.value, str) else ""
    headers, left = passed_on(reply.headers), dropped(reply)
    ended = dialect.ended(members) and not unended(reply)
    return Answer(reply.status, headers, body, usage, members, named, left, ended)


def text(value: bytes) -> str:
    """Of a header, which may hold any byte."""
    return value.decode("utf-8", "surrogateescape")
