"""Reads a whole chat completion into answer blocks."""

from collections.abc import Iterator, Mapping
from secrets import token_hex
from typing import Any, Final

from harness.domain.reliability.failures import FailureClass
from router.conversation.call_ids import AnswerIds, arguments_text
from router.conversation.makers import seal_thoughts
from router.frame.failure import UpstreamFailed
from router.frame.json_spans import ParsedObject
from router.frame.object_lists import empty_answer_error, first_object, iter_objects
from router.protocols.answer_blocks import (
    AnswerBlock,
    AnswerEnd,
    AnswerHead,
    AnswerTokens,
    BlockKind,
    FinishReason,
    WholeAnswer,
)
from router.protocols.answer_ends import AnswerEnding, read_ending
from router.protocols.call_pieces import BROKEN_CALL, parse_json
from router.protocols.provider_failures import check_ending, error_in_answer
from router.protocols.usage import read_count, read_usage

_FINISHES: Final[Mapping[AnswerEnding, FinishReason]] = {
    AnswerEnding.GOOD: FinishReason.STOP,
    AnswerEnding.CUT: FinishReason.LENGTH,
    AnswerEnding.REFUSED: FinishReason.FILTERED,
}
_CALLS: Final = ("tool_calls", "function_call")


def read_chat_answer(members: ParsedObject, *, thinking: bool) -> WholeAnswer:
    """Reads an answer. thinking: thoughts are wanted. Raises UpstreamFailed for no answer."""
    if members.get("error") and not members.get("choices"):
        raise error_in_answer(members.get("error"))
    choice = first_object(members, "choices")
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise UpstreamFailed(FailureClass.MALFORMED, "status 200 without a message")
    head = read_head(members)
    blocks = tuple(_blocks(message))
    if not thinking:
        blocks = tuple(block for block in blocks if block.kind is not BlockKind.THINKING)
    finish = choice.get("finish_reason")
    if not finish and not blocks:
        raise empty_answer_error("finish_reason")
    if finish:
        check_ending(finish, has_output=True, silence=True)  # the endpoint's own check has more
    called = any(block.kind is BlockKind.CALL for block in blocks)
    refused = any(block.kind is BlockKind.REFUSAL for block in blocks)
    end = read_end(finish, choice, read_tokens(members), called=called, refused=refused)
    return WholeAnswer(head, blocks, end)


def read_head(members: ParsedObject) -> AnswerHead:
    created = members.get("created")
    # Some providers write it as a float.
    seconds = int(created) if isinstance(created, int | float) and 0 < created < 2**53 else 0
    # An answer's id is never empty, and never that of another answer.
    own = str(members.get("id") or "") or token_hex(12)
    return AnswerHead(own, str(members.get("model") or ""), seconds)


def read_end(
    reason: object,
    choice: Mapping[Any, object],
    tokens: AnswerTokens | None,
    *,
    called: bool,
    refused: bool,
) -> AnswerEnd:
    """Reads the end. called: some servers say `stop` though a tool is called."""
    finish = FinishReason.CALLS if reason in _CALLS else _read_finish(reason)
    if refused:
        finish = FinishReason.FILTERED
    elif called and finish is FinishReason.STOP:
        finish = FinishReason.CALLS
    # vLLM's: the stop sequence that it met.
    met = choice.get("stop_reason")
    sequence = met if isinstance(met, str) and finish is FinishReason.STOP else ""
    word = str(reason) if finish is FinishReason.UNKNOWN else ""
    return AnswerEnd(finish, sequence, tokens, word)


def _read_finish(reason: object) -> FinishReason:
    if not reason:
        return FinishReason.STOP
    return _FINISHES.get(read_ending(reason), FinishReason.UNKNOWN)


def read_tokens(members: ParsedObject) -> AnswerTokens | None:
    usage = members.get("usage")
    known = read_usage(usage)
    if known is None or not isinstance(usage, Mapping):
        return None
    details = usage.get("completion_tokens_details")
    thought = read_count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    thought = min(thought, known.output_tokens)
    return AnswerTokens(*known[:3], thought, known.written_tokens, known.hour_tokens)


def read_thinking(part: Mapping[object, object]) -> str:
    """Reads thoughts under DeepSeek's and vLLM's name, then under OpenRouter's."""
    for name in ("reasoning_content", "reasoning"):
        found = part.get(name)
        if isinstance(found, str) and found:
            return found
    return ""


def read_content(content: object) -> Iterator[tuple[BlockKind, str]]:
    if isinstance(content, str):
        yield BlockKind.TEXT, content
    for part in iter_objects(content):
        match part.get("type"):
            case "text":
                yield BlockKind.TEXT, str(part.get("text") or "")
            case "refusal":
                yield BlockKind.REFUSAL, str(part.get("refusal") or "")
            case "thinking":
                for thought in iter_objects(part.get("thinking")):
                    yield BlockKind.THINKING, str(thought.get("text") or "")
            case _:
                pass


def _blocks(message: Mapping[object, object]) -> Iterator[AnswerBlock]:
    thought = read_thinking(message)
    if thought:
        signed = seal_thoughts(list(iter_objects(message.get("thinking_blocks"))))
        yield AnswerBlock(BlockKind.THINKING, thought, sealed=signed)
    yield from _joined(read_content(message.get("content")))
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        yield AnswerBlock(BlockKind.REFUSAL, str(message["refusal"]))
    ids = AnswerIds("")
    for number, call in enumerate(iter_objects(message.get("tool_calls"))):
        function = call.get("function")
        if not isinstance(function, Mapping) or not function.get("name"):
            raise UpstreamFailed(FailureClass.MALFORMED, "a tool call without a name")
        arguments = str(arguments_text(function.get("arguments") or {}))
        if not isinstance(parse_json(arguments), Mapping):
            raise UpstreamFailed(FailureClass.MALFORMED, BROKEN_CALL)
        own = ids.of_call(call.get("id"), number)
        yield AnswerBlock(BlockKind.CALL, arguments, own, str(function["name"]))


def _joined(parts: Iterator[tuple[BlockKind, str]]) -> Iterator[AnswerBlock]:
    last: AnswerBlock | None = None
    for kind, text in parts:
        if last is not None and last.kind is kind:
            last = last._replace(text=last.text + text)
            continue
        if last is not None and last.text:
            yield last
        last = AnswerBlock(kind, text)
    if last is not None and last.text:
        yield last
