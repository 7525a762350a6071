"""The stored messages of a session, and the context that a model gets from them. Pure.

`build_context` keeps only complete messages, in order, each tool call with its result.
`list_misfits` and `list_omissions` list the parts of a conversation that another target cannot
take over. The router checks single requests itself.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from harness.providers.models.capabilities import (
    Capabilities,
    Needs,
    missing_capabilities,
)


class MessageRole(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageState(StrEnum):
    STREAMING = "streaming"  # the model is still answering
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"  # the process ended before the answer did
    FAILED = "failed"  # no model answered


# A text, or the API's parts: `{"type": "text", …}`, `{"type": "image_url", …}`.
Content = str | Sequence[Mapping[str, object]]
ChatMessage = Mapping[str, Any]  # a message of OpenAI's Chat Completions


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A client's message, before it is stored."""

    role: MessageRole
    content: Content
    response_to: str = ""  # id of the tool call that the message answers


@dataclass(frozen=True, slots=True)
class MessageToolCall:
    """A model's call of a tool. The arguments are unchecked: `arguments_fault` checks them."""

    id: str
    name: str
    arguments: str  # JSON, as the model wrote it
    extra: Mapping[str, object] = field(default_factory=dict)  # the provider's own fields


@dataclass(frozen=True, slots=True)
class ServedBy:
    model_requested: str = ""  # the session's model in force
    route: str = ""
    target: str = ""  # `provider/model`
    request_id: str = ""
    fallback_from: str = ""  # the model that failed first; empty unless the fallback answered
    reason: str = ""  # why `auto` or the fallback answered; else empty


@dataclass(frozen=True, slots=True)
class MessageUsage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # part of the input tokens
    cost_usd: float | None = None  # None if the price is unknown

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
    """A client's key, under which a repeated request gets the stored answer.

    client: `AgentsClient.name`, so that two clients may use the same key.
    """

    client: str = ""
    key: str = ""
    request_hash: str = ""  # hash of the request's content


FREE: Final = MessageUsage(cost_usd=0.0)
# A field of `extra`: the model refused its input, and would refuse it again.
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
    response_to: str = ""  # id of the tool call that the message answers
    state: MessageState = MessageState.COMPLETE
    served: ServedBy = ServedBy()
    usage: MessageUsage = MessageUsage()
    # The provider's own fields, such as its reasoning, which go back to it with the context.
    extra: Mapping[str, object] = field(default_factory=dict)
    error: str = ""  # why the message failed or was interrupted, or why its text is cut short
    done_at: datetime | None = None  # None while streaming
    turn: str = ""  # id
    sent: IdempotencyKey = IdempotencyKey()  # empty unless a client sent the message
    # The answer to a repetition of the key; empty if the client may send the message again.
    kept: str = field(default="", repr=False)

    @property
    def is_whole(self) -> bool:
        return self.state is MessageState.COMPLETE

    @property
    def is_refusal(self) -> bool:
        return self.state is MessageState.FAILED and bool(self.extra.get(REFUSED))


# The router estimates the same. Few tokenizers need more than a token for four bytes of
# English.
BYTES_PER_TOKEN: Final = 4
# Providers refuse these characters in a function's name.
_INVALID_NAME_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME_LENGTH: Final = 64
# The router marks the fields that a target signed, and removes them for every other target.
_ROUTER_MARK: Final = re.compile(r'(?<!\\)"sg\.[a-z2-7]{8}\.')
NO_RESULT: Final = "Error: the tool was interrupted; it may or may not have had an effect"


def arguments_fault(call: MessageToolCall) -> str | None:
    """Returns why no tool can read the call's arguments; None if they are strict JSON."""
    try:
        arguments = json.loads(call.arguments or "{}")
        # NaN and lone surrogates are not JSON: they would break a tool server's connection.
        json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return "the arguments are not JSON; call it again with a JSON object"
    if not isinstance(arguments, Mapping):
        return "the arguments are not a JSON object; call it again with a JSON object"
    return None


def build_context(
    messages: Iterable[SessionMessage],
    targets: Iterable[str],
    instructions: str = "",
) -> list[ChatMessage]:
    """Builds the messages of a request to the router.

    Args:
        targets: names of the targets that may answer.

    A call without a result gets `NO_RESULT`, because providers require a result.
    """
    providers = {target.partition("/")[0] for target in targets}
    system = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, *_pair_results(list_in_context(messages), providers)]


def list_in_context(messages: Iterable[SessionMessage]) -> list[SessionMessage]:
    """Lists the complete messages. Omits turns whose input the model refused, because with this
    input it would refuse every later message, too.
    """
    all_messages = list(messages)
    refused_turns = {message.turn for message in all_messages if message.is_refusal}
    # Keeps a turn with an answer, because its tools may have had effects.
    refused_turns -= {
        m.turn for m in all_messages if m.is_whole and m.role is MessageRole.ASSISTANT
    }
    return [m for m in all_messages if m.is_whole and m.turn not in refused_turns]


def _pair_results(
    messages: Sequence[SessionMessage], providers: Collection[str]
) -> Iterator[ChatMessage]:
    """Yields the messages with each call's result directly after the call, as providers
    require.

    Skips results whose call is not in the context.
    """
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if message.role is MessageRole.TOOL:
            continue  # the context does not contain its call
        yield _build_chat_message(message, providers)
        if not message.tool_calls:
            continue
        results: dict[str, SessionMessage] = {}
        while position < len(messages) and messages[position].role is MessageRole.TOOL:
            results.setdefault(messages[position].response_to, messages[position])
            position += 1
        for call in message.tool_calls:
            result = results.get(call.id)
            content = NO_RESULT if result is None else result.content
            yield {
                "role": "tool",
                "content": content,
                "tool_call_id": call.id,
            }


def _build_chat_message(message: SessionMessage, providers: Collection[str]) -> ChatMessage:
    """Builds a message of Chat Completions.

    Keeps a provider's own fields only if every target belongs to that provider, or if the
    router has marked them. The router removes marked fields for other targets.
    """
    is_own = set(providers) == {provider_of(message)}

    def readable_fields(extra: Mapping[str, object]) -> Mapping[str, object]:
        return {k: v for k, v in extra.items() if is_own or _ROUTER_MARK.search(json.dumps(v))}

    chat: dict[str, object] = {
        "role": message.role.value,
        "content": message.content,
    }
    if message.tool_calls:
        chat["content"] = message.content or None
        chat["tool_calls"] = [
            {**readable_fields(call.extra), **_build_chat_call(call)}
            for call in message.tool_calls
        ]
    return {**chat, **readable_fields(message.extra)}


def _build_chat_call(call: MessageToolCall) -> Mapping[str, object]:
    """Repairs a call's name and arguments. A provider that refuses one call in the context
    refuses every later message of the session.
    """
    is_valid = arguments_fault(call) is None
    function = {
        "name": _INVALID_NAME_CHARACTERS.sub("_", call.name)[:_MAX_NAME_LENGTH] or "unnamed",
        "arguments": call.arguments if is_valid else json.dumps({"no_json": call.arguments}),
    }
    return {
        "id": call.id,
        "type": "function",
        "function": function,
    }


def provider_of(message: SessionMessage) -> str:
    """Returns the provider that wrote the message; empty for a message that no model wrote."""
    return message.served.target.partition("/")[0]


def find_open_calls(
    messages: Sequence[SessionMessage], client_tools: Iterable[str]
) -> tuple[MessageToolCall, ...]:
    """Finds the last answer's calls of client functions that have no result yet. A call of a
    server's tool is never open, because an interrupted run gives no result.
    """
    names = frozenset(client_tools)
    answered_ids: set[str] = set()
    for message in reversed(list_in_context(messages)):
        if message.role is not MessageRole.TOOL:
            calls = message.tool_calls
            return tuple(c for c in calls if c.name in names and c.id not in answered_ids)
        answered_ids.add(message.response_to)
    return ()


def list_misfits(
    messages: Sequence[SessionMessage],
    capabilities: Capabilities,
    *,
    tools: bool,
    target: str,
) -> tuple[str, ...]:
    """Lists why a target cannot continue the conversation.

    Args:
        tools: whether the agent has tools.
    """
    context = list_in_context(messages)
    pictures = [message for message in context if _has_image(message)]
    needs_tools = tools or any(message.tool_calls for message in context)
    needs = Needs(
        tools=needs_tools,
        vision=bool(pictures),
        approx_input_tokens=estimate_tokens(context),
    )
    missing = missing_capabilities(needs, capabilities)
    return tuple(_describe_misfit(capability, target, pictures) for capability in missing)


def _describe_misfit(
    capability: str,
    target: str,
    pictures: Sequence[SessionMessage],
) -> str:
    """Describes a lacking ability for people.

    Args:
        pictures: the messages with images.
    """
    if capability == "vision":
        places = ", ".join(str(message.position) for message in pictures)
        return f"{target} accepts no images, and there are images in the messages {places}"
    if capability == "tools":
        return f"{target} has no tools, and the agent's conversation needs them"
    return f"{target} lacks {capability} that the conversation needs"


def list_omissions(messages: Sequence[SessionMessage], provider: str) -> tuple[str, ...]:
    """Describes the reasoning of other providers, which this provider's targets will
    not get.
    """
    positions_by_author: dict[str, list[int]] = {}
    for message in messages:
        has_own_fields = message.extra or any(call.extra for call in message.tool_calls)
        if message.is_whole and has_own_fields and provider_of(message) != provider:
            positions_by_author.setdefault(provider_of(message), []).append(message.position)
    return tuple(
        f"the reasoning of {author} in the messages {', '.join(map(str, positions))} is left "
        f"out: only {author} can read it"
        for author, positions in positions_by_author.items()
    )


def estimate_tokens(messages: Sequence[SessionMessage]) -> int:
    """Estimates the conversation's tokens: the provider's count of the last answer, plus
    `BYTES_PER_TOKEN` for later messages.
    """
    counted_tokens = 0
    bytes_since = 0
    for message in messages:
        used_tokens = message.usage.input_tokens + message.usage.output_tokens
        if used_tokens:
            counted_tokens = used_tokens
            bytes_since = 0
        else:
            bytes_since += _count_bytes(message)
    return max(
        counted_tokens + bytes_since // BYTES_PER_TOKEN,
        sum(_count_bytes(message) for message in messages) // BYTES_PER_TOKEN,
    )


def _count_bytes(message: SessionMessage) -> int:
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
