"""A message is one part of a session as it is stored: complete, under way or interrupted, with
who answered it, its tokens and its cost.

`build_context` makes of a session's messages what the next model is shown: whole ones alone, in
order, every tool call with its result. What a target cannot hold is said in words. Pure.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from harness.providers.models.capabilities import Capabilities, Needs, missing_capabilities


class MessageRole(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageState(StrEnum):
    STREAMING = "streaming"  # the answer is under way
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"  # the process ended before the answer did
    FAILED = "failed"  # no model answered


# A text, or parts as the API has them: `{"type": "text", …}`, `{"type": "image_url", …}`.
Content = str | Sequence[Mapping[str, object]]
ChatMessage = Mapping[str, Any]  # in OpenAI's form, as the router takes it


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    role: MessageRole
    content: Content
    response_to: str = ""  # of a tool's message, the id of the call that it answers


@dataclass(frozen=True, slots=True)
class MessageToolCall:
    id: str
    name: str
    arguments: str  # JSON, as the model wrote it
    extra: Mapping[str, object] = field(default_factory=dict)  # the provider's own fields


@dataclass(frozen=True, slots=True)
class ServedBy:
    model_requested: str = ""  # the model's name in force, as the session has it
    route: str = ""  # as the router named it
    target: str = ""  # `provider/model`
    request_id: str = ""
    # The model that was asked first, where `fallbackModel` answered; else empty.
    fallback_from: str = ""
    reason: str = ""  # why auto or the fallback chose this one; else empty


@dataclass(frozen=True, slots=True)
class MessageUsage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    cost_usd: float | None = None  # None where the price is unknown

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "MessageUsage") -> "MessageUsage":
        costs = (self.cost_usd, other.cost_usd)
        return MessageUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            None if None in costs else sum(cost or 0.0 for cost in costs),
        )


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    client: str = ""  # who sends it
    key: str = ""  # the client's name of a message, so that sending it again does it once
    request_hash: str = ""  # of the request's content


FREE: Final = MessageUsage(cost_usd=0.0)
# In `extra` of a failed message: the model refused what it was sent, and will again.
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class SessionMessage:
    session: str
    position: int  # from 1, without gaps
    id: str  # `ms_…`
    role: MessageRole
    created_at: datetime
    content: Content = ""
    tool_calls: tuple[MessageToolCall, ...] = ()
    response_to: str = ""  # of a tool's message, the call that it answers
    state: MessageState = MessageState.COMPLETE
    served: ServedBy = ServedBy()
    usage: MessageUsage = MessageUsage()
    # What of the provider's goes back to it with the conversation, such as its reasoning.
    extra: Mapping[str, object] = field(default_factory=dict)
    # Why it failed or was interrupted, as the client was told; of a complete one, what cut it
    # short.
    error: str = ""
    done_at: datetime | None = None  # None while the answer is under way
    turn: str = ""  # the id of the turn that it belongs to
    sent: IdempotencyKey = IdempotencyKey()  # of a client's message
    # The answer that the same key gets again; empty where the message may be sent again.
    kept: str = field(default="", repr=False)

    @property
    def is_whole(self) -> bool:
        return self.state is MessageState.COMPLETE

    @property
    def is_refusal(self) -> bool:
        return self.state is MessageState.FAILED and bool(self.extra.get(REFUSED))


# As the router estimates it: few tokenizers need more than one for four bytes of English.
BYTES_PER_TOKEN: Final = 4
# In a function's name: providers refuse any other character.
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 64
# As the router marks what a target signed: it keeps that from every other target.
_MARKED: Final = re.compile(r'(?<!\\)"sg\.[a-z2-7]{8}\.')
NO_RESULT: Final = "Error: the tool's run was cut off; whether it had an effect is not known"


def arguments_fault(call: MessageToolCall) -> str | None:
    """What is wrong with a call's arguments: what is not strict JSON no server reads."""
    try:
        arguments = json.loads(call.arguments or "{}")
        # NaN and lone surrogates are not JSON. They would end a tool server's connection, which
        # all sessions share.
        json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return "the arguments are no JSON; call it again with a JSON object"
    if not isinstance(arguments, Mapping):
        return "the arguments are no JSON object; call it again with one"
    return None


def build_context(
    messages: Iterable[SessionMessage], targets: Iterable[str], instructions: str = ""
) -> list[ChatMessage]:
    """What goes to the router, for the targets that may answer: `provider/model`. A call that
    the end of a process left without a result gets one that says so: no protocol takes a call
    alone.
    """
    providers = {target.partition("/")[0] for target in targets}
    system = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, *_paired(list_in_context(messages), providers)]


def list_in_context(messages: Iterable[SessionMessage]) -> list[SessionMessage]:
    """What a model is shown: all that is whole, but for a client's message that was refused at
    once. What comes behind it would else be refused with it, for ever.
    """
    told = list(messages)
    refused = {message.turn for message in told if message.is_refusal}
    # Of a turn that did something all is shown: it may have had effects.
    refused -= {m.turn for m in told if m.is_whole and m.role is MessageRole.ASSISTANT}
    return [m for m in told if m.is_whole and m.turn not in refused]


def _paired(
    messages: Sequence[SessionMessage], providers: Collection[str]
) -> Iterator[ChatMessage]:
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if message.role is MessageRole.TOOL:
            continue  # a result whose call is not shown
        yield _chat_message(message, providers)
        if not message.tool_calls:
            continue
        results: dict[str, SessionMessage] = {}
        while position < len(messages) and messages[position].role is MessageRole.TOOL:
            results.setdefault(messages[position].response_to, messages[position])
            position += 1
        for call in message.tool_calls:
            result = results.get(call.id)
            content = NO_RESULT if result is None else result.content
            yield {"role": "tool", "content": content, "tool_call_id": call.id}


def _chat_message(message: SessionMessage, providers: Collection[str]) -> ChatMessage:
    is_own = set(providers) == {provider_of(message)}

    def readable(extra: Mapping[str, object]) -> Mapping[str, object]:
        """Returns the fields that the next model may get: its provider's, and marked ones."""
        return {k: v for k, v in extra.items() if is_own or _MARKED.search(json.dumps(v))}

    said: dict[str, object] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        said["content"] = message.content or None
        said["tool_calls"] = [
            {**readable(call.extra), **_chat_call(call)} for call in message.tool_calls
        ]
    return {**said, **readable(message.extra)}


def _chat_call(call: MessageToolCall) -> Mapping[str, object]:
    """The call as every provider takes it. A model may write anything, and a provider that
    refuses one call refuses all that is ever said behind it.
    """
    is_sound = arguments_fault(call) is None
    function = {
        "name": _NO_NAME.sub("_", call.name)[:_LONGEST_NAME] or "unnamed",
        "arguments": call.arguments if is_sound else json.dumps({"no_json": call.arguments}),
    }
    return {"id": call.id, "type": "function", "function": function}


def provider_of(message: SessionMessage) -> str:
    return message.served.target.partition("/")[0]


def find_open_calls(
    messages: Sequence[SessionMessage], client_tools: Iterable[str]
) -> tuple[MessageToolCall, ...]:
    """The last answer's calls of the client's functions that have no result yet. One of the
    server's is not open: its run was cut off, and no result will come.
    """
    names = frozenset(client_tools)
    answered: set[str] = set()
    for message in reversed(list_in_context(messages)):
        if message.role is not MessageRole.TOOL:
            calls = message.tool_calls
            return tuple(c for c in calls if c.name in names and c.id not in answered)
        answered.add(message.response_to)
    return ()


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
