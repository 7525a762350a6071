"""A transcript is a session's messages as the next model is shown them: whole ones alone, in
order, every tool call with its result, and what only its own provider understands (reasoning,
signatures) for that provider alone. What a target cannot hold is said in words. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.domain.agents.message import MessageRole, MessageToolCall, SessionMessage
from harness.domain.agents.turn import arguments_fault
from harness.domain.routing.capabilities import Capabilities, Needs, missing_capabilities

Content = str | Sequence[Mapping[str, object]]
# As the router estimates it: few tokenizers need more than one for four bytes of English.
BYTES_PER_TOKEN: Final = 4
# In a function's name: providers refuse any other character.
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64
NO_RESULT: Final = "Error: the tool's run was cut off; whether it had an effect is not known"


@dataclass(frozen=True, slots=True)
class ContextMessage:
    role: MessageRole
    content: Content = ""
    tool_calls: tuple[MessageToolCall, ...] = ()
    response_to: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)  # for its own provider alone


def build_context(
    messages: Iterable[SessionMessage], *, provider: str, instructions: str = ""
) -> tuple[ContextMessage, ...]:
    """What goes to a model of this provider. A call that the end of a process left without a
    result gets one that says so: no protocol takes a call alone.
    """
    system = (ContextMessage(MessageRole.SYSTEM, instructions),) if instructions else ()
    return (*system, *_paired(list_in_context(messages), provider))


def list_in_context(messages: Iterable[SessionMessage]) -> list[SessionMessage]:
    """What a model is shown: all that is whole, but for a client's message that was refused at
    once. What comes behind it would else be refused with it, for ever.
    """
    told = list(messages)
    refused = {message.turn for message in told if message.is_refusal}
    # Of a turn that did something all is shown: it may have had effects.
    refused -= {m.turn for m in told if m.is_whole and m.role is MessageRole.ASSISTANT}
    return [m for m in told if m.is_whole and m.turn not in refused]


def _paired(messages: Sequence[SessionMessage], provider: str) -> Iterator[ContextMessage]:
    """Each call's results stand right behind its message, in the order of the calls."""
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if message.role is MessageRole.TOOL:
            continue  # a result whose call is not shown
        yield _context_message(message, provider)
        if not message.tool_calls:
            continue
        results: dict[str, SessionMessage] = {}
        while position < len(messages) and messages[position].role is MessageRole.TOOL:
            results.setdefault(messages[position].response_to, messages[position])
            position += 1
        for call in message.tool_calls:
            result = results.get(call.id)
            content = NO_RESULT if result is None else result.content
            yield ContextMessage(MessageRole.TOOL, content, response_to=call.id)


def _context_message(message: SessionMessage, provider: str) -> ContextMessage:
    own = provider_of(message) == provider
    return ContextMessage(
        message.role,
        message.content,
        tuple(_sendable(call, own=own) for call in message.tool_calls),
        extra=message.extra if own else {},
    )


def _sendable(call: MessageToolCall, *, own: bool) -> MessageToolCall:
    """The call as every provider takes it. A model may write anything, and a provider that
    refuses one call refuses all that is ever said behind it.
    """
    is_sound = arguments_fault(call) is None
    return replace(
        call,
        name=_NO_NAME.sub("_", call.name)[:_LONGEST_NAME] or "unnamed",
        arguments=call.arguments if is_sound else json.dumps({"no_json": call.arguments}),
        extra=call.extra if own else {},
    )


def provider_of(message: SessionMessage) -> str:
    """The provider that wrote it; empty for a message of the client's."""
    return message.served.target.partition("/")[0]


def find_open_calls(
    messages: Sequence[SessionMessage], client_tools: Iterable[str]
) -> tuple[MessageToolCall, ...]:
    """The last answer's calls of the client's functions that have no result yet. One of the
    server's is not open: its run was cut off, and nobody will answer it.
    """
    names = frozenset(client_tools)
    answered: set[str] = set()
    for message in reversed(list_in_context(messages)):
        if message.role is not MessageRole.TOOL:
            calls = message.tool_calls
            return tuple(c for c in calls if c.name in names and c.id not in answered)
        answered.add(message.response_to)
    return ()


def expected_provider(messages: Sequence[SessionMessage], model: str, otherwise: str) -> str:
    """The provider that will most likely answer: of the newest answer that was asked of the
    same model, else `otherwise`, the incumbent's.
    """
    for message in reversed(messages):
        if message.is_whole and message.role is MessageRole.ASSISTANT:
            return (
                provider_of(message) if message.served.model_requested == model else otherwise
            )
    return otherwise


def list_misfits(
    messages: Sequence[SessionMessage], has: Capabilities, *, tools: bool, target: str
) -> tuple[str, ...]:
    """What keeps a target from going on with the conversation, a sentence each; empty where
    nothing does. tools: the agent has some.
    """
    whole = list_in_context(messages)
    pictures = [message for message in whole if _has_image(message)]
    calls = tools or any(message.tool_calls for message in whole)
    needs = Needs(
        tools=calls, vision=bool(pictures), approx_input_tokens=estimate_tokens(whole)
    )
    lacks = missing_capabilities(needs, has)
    return tuple(_misfit(lack, target, pictures) for lack in lacks)


def _misfit(lack: str, target: str, pictures: Sequence[SessionMessage]) -> str:
    if lack == "vision":
        places = ", ".join(str(message.position) for message in pictures)
        return f"{target} takes no images, and there are some in the messages {places}"
    if lack == "tools":
        return f"{target} has no tools, and the agent's conversation needs them"
    return f"{target} lacks {lack} that the conversation needs"


def list_omissions(messages: Sequence[SessionMessage], provider: str) -> tuple[str, ...]:
    """What a target of this provider will not be shown, a sentence each: the reasoning that
    other providers wrote.
    """
    written: dict[str, list[int]] = {}
    for message in messages:
        signed = message.extra or any(call.extra for call in message.tool_calls)
        if message.is_whole and signed and provider_of(message) != provider:
            written.setdefault(provider_of(message), []).append(message.position)
    return tuple(
        f"the reasoning of {author} in the messages {', '.join(map(str, positions))} is left "
        f"out: only {author} can read it"
        for author, positions in written.items()
    )


def estimate_tokens(messages: Sequence[SessionMessage]) -> int:
    """About how many tokens the conversation has: as the last answer was counted, with what
    came since; at four bytes each where nothing was counted.
    """
    counted, since = 0, 0
    for message in messages:
        used = message.usage.input_tokens + message.usage.output_tokens
        counted, since = (used, 0) if used else (counted, since + _bytes(message))
    return max(
        counted + since // BYTES_PER_TOKEN,
        sum(_bytes(message) for message in messages) // BYTES_PER_TOKEN,
    )


def _bytes(message: SessionMessage) -> int:
    """Of its text and its calls; of images nothing, whose data are no text."""
    texts = (
        [message.content]
        if isinstance(message.content, str)
        else [part["text"] for part in message.content if part.get("type") == "text"]
    )
    texts += [call.arguments for call in message.tool_calls]
    return sum(len(str(text).encode("utf-8", "surrogatepass")) for text in texts)


def _has_image(message: SessionMessage) -> bool:
    parts = () if isinstance(message.content, str) else message.content
    return any(part.get("type") == "image_url" for part in parts)
