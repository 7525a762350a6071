"""What a chat completion says."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from harness.domain.reliability.failures import FailureClass
from router.protocols.answer_blocks import Answered, Block, End, Finish, Head, Kind, Tokens
from router.protocols.answer_validity import parsed
from router.protocols.object_lists import first_object, nothing_said, objects
from router.protocols.provider_failures import error_in_answer
from router.protocols.usage import count_of, usage_of
from router.request.json_spans import Members
from router.upstream.transport import UpstreamFailed

_FINISHES: Final[Mapping[str, Finish]] = {
    "length": Finish.LENGTH,
    "content_filter": Finish.FILTERED,
    "tool_calls": Finish.CALLS,
    "function_call": Finish.CALLS,
}


def answered(members: Members, *, thinking: bool) -> Answered:
    """thinking: it is wanted. Raises UpstreamFailed for what is no whole answer."""
    if members.get("error") and not members.get("choices"):
        raise error_in_answer(members.get("error"))
    choice = first_object(members, "choices")
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without a message")
    head = head_of(members)
    blocks = tuple(_blocks(message, head.id))
    if not thinking:
        blocks = tuple(each for each in blocks if each.kind is not Kind.THINKING)
    finish = choice.get("finish_reason")
    if not finish and not blocks:
        raise nothing_said("finish_reason")
    called = any(each.kind is Kind.CALL for each in blocks)
    refused = any(each.kind is Kind.REFUSAL for each in blocks)
    end = end_of(finish, choice, tokens_of(members), called=called, refused=refused)
    return Answered(head, blocks, end)


def head_of(members: Members) -> Head:
    created = members.get("created")
    # Some providers write it as a float.
    seconds = int(created) if isinstance(created, int | float) and 0 < created < 2**53 else 0
    return Head(str(members.get("id") or ""), str(members.get("model") or ""), seconds)


def end_of(
    reason: object,
    choice: Mapping[Any, object],
    tokens: Tokens | None,
    *,
    called: bool,
    refused: bool,
) -> End:
    """called: some servers say `stop` though a tool is called."""
    finish = _FINISHES.get(str(reason), Finish.STOP)
    if refused:
        finish = Finish.FILTERED
    elif called and finish is Finish.STOP:
        finish = Finish.CALLS
    # vLLM's: the stop sequence that it met.
    met = choice.get("stop_reason")
    return End(finish, met if isinstance(met, str) and finish is Finish.STOP else "", tokens)


def tokens_of(members: Members) -> Tokens | None:
    usage = members.get("usage")
    known = usage_of(usage)
    if known is None or not isinstance(usage, Mapping):
        return None
    details = usage.get("completion_tokens_details")
    thought = count_of(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    return Tokens(*known, min(thought, known.output_tokens))


def call_id(given: object, answer: str, number: int) -> str:
    """The provider's own, or one that is the same whenever this answer is read."""
    return given if isinstance(given, str) and given else f"call_{answer}_{number}"


def thoughts(part: Mapping[object, object]) -> str:
    """Of a message or delta: DeepSeek's and vLLM's name for them, then OpenRouter's."""
    for name in ("reasoning_content", "reasoning"):
        found = part.get(name)
        if isinstance(found, str) and found:
            return found
    return ""


def written(content: object) -> Iterator[tuple[Kind, str]]:
    """Content as text, or as a list of parts, of which Mistral's may be thoughts."""
    if isinstance(content, str):
        yield Kind.TEXT, content
    for part in objects(content):
        match part.get("type"):
            case "text":
                yield Kind.TEXT, str(part.get("text") or "")
            case "refusal":
                yield Kind.REFUSAL, str(part.get("refusal") or "")
            case "thinking":
                for thought in objects(part.get("thinking")):
                    yield Kind.THINKING, str(thought.get("text") or "")
            case _:
                pass


def _blocks(message: Mapping[object, object], answer: str) -> Iterator[Block]:
    thought = thoughts(message)
    if thought:
        yield Block(Kind.THINKING, thought)
    yield from _joined(written(message.get("content")))
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        yield Block(Kind.REFUSAL, str(message["refusal"]))
    for number, call in enumerate(objects(message.get("tool_calls"))):
        function = call.get("function")
        if not isinstance(function, Mapping) or not function.get("name"):
            raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
        arguments = str(function.get("arguments") or "{}")
        if not isinstance(parsed(arguments), Mapping):
            raise UpstreamFailed(
                FailureClass.MALFORMED, "a tool call whose arguments are no JSON object"
            )
        own = call_id(call.get("id"), answer, number)
        yield Block(Kind.CALL, arguments, own, str(function["name"]))


def _joined(parts: Iterator[tuple[Kind, str]]) -> Iterator[Block]:
    last: Block | None = None
    for kind, text in parts:
        if last is not None and last.kind is kind:
            last = last._replace(text=last.text + text)
            continue
        if last is not None and last.text:
            yield last
        last = Block(kind, text)
    if last is not None and last.text:
        yield last
