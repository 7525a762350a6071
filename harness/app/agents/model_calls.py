"""`RouterModelCalls` asks a session's models through the router, by the Python client, with a
signed header that says for whose key, agent and session.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from harness.client.channel_client import ChannelClient
from harness.client.http import HttpChannel
from harness.client.stream import ChannelAnswer
from harness.client.types import (
    Caller,
    CompletionRequest,
    CompletionResponse,
    Image,
    Message,
    StreamChunk,
    Text,
    ToolDefinition,
    ToolRequest,
)
from harness.domain.agents.agent import LITERAL_MARK
from harness.domain.agents.caller import AGENT_HEADER, AgentCaller, sign_agent_header
from harness.domain.agents.message import MessageToolCall, MessageUsage, ServedBy
from harness.domain.agents.model_call import AnswerPiece, ModelCallAnswer, ModelCallRequest
from harness.domain.agents.transcript import ContextMessage
from harness.domain.errors import CallFailed, CallRefused, NobodyAnswered, RouterUnreachable
from harness.ports import Clock

# Above what any turn may take: each call has its own, shorter limit.
CONNECTION_S: Final = 24 * 3600.0
# Beyond the router's own limit for the call, so that its words arrive and not ours.
GRACE_S: Final = 5.0
# Routers follow the database within two seconds; but before they serve the first target of a
# protocol that they translate, they load the translation, which takes seconds of CPU.
GRANT_ARRIVES_S: Final = 60.0
ASK_AGAIN_S: Final = 0.2


class RouterModelCalls:
    """Asks models through one router. Close it by `aclose`. grant_arrives_s: how long a router
    may take to serve the target of a new grant.
    """

    def __init__(
        self,
        router_url: str,
        secret: bytes,
        clock: Clock,
        *,
        grant_arrives_s: float = GRANT_ARRIVES_S,
    ) -> None:
        self._channel = HttpChannel(router_url, "", timeout_s=CONNECTION_S, connections=0)
        self._secret, self._clock = secret, clock
        self._grant_arrives_s = grant_arrives_s

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        channel = _SignedChannel(self._channel, request, self._secret, self._clock)
        client = ChannelClient(channel, self._clock)
        try:
            async with asyncio.timeout(request.timeout_s + GRACE_S):
                return _answer(await self._complete(client, request, on_piece))
        except TimeoutError:
            raise RouterUnreachable(
                f"model {request.model!r} gave no whole answer within "
                f"{request.timeout_s:g} s; ask for less, or allow more (agents.limits)"
            ) from None
        except CallFailed as error:
            error.args = (_utf8(str(error)),)  # a provider's words are in it
            raise

    async def _complete(
        self,
        client: ChannelClient,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None,
    ) -> CompletionResponse:
        """A grant that was given a moment ago may not have reached every router yet."""
        completion = _completion_request(request)
        wait_s = min(self._grant_arrives_s, request.timeout_s)
        until = self._clock.monotonic() + wait_s
        while True:
            try:
                if on_piece is None:
                    return await client.complete(completion)
                return await _stream(client, completion, on_piece)
            except CallRefused as error:
                if not request.grant or error.code != "model_not_found":
                    raise
                if self._clock.monotonic() >= until:
                    raise NobodyAnswered(
                        f"no router serves {request.model.removeprefix(LITERAL_MARK)!r} yet, "
                        f"{wait_s:g} s after it was asked for: a router loads the first model "
                        "of a protocol for a while; send the message again",
                        status=503,
                        code="model_not_ready",
                        request_id=error.request_id,
                    ) from error
            await asyncio.sleep(ASK_AGAIN_S)

    async def aclose(self) -> None:
        await self._channel.aclose()


class _SignedChannel:
    """The router for one call of a session. It shares the connections, and closes none."""

    def __init__(
        self, channel: HttpChannel, request: ModelCallRequest, secret: bytes, clock: Clock
    ) -> None:
        self._channel, self._secret, self._clock = channel, secret, clock
        self._caller = AgentCaller(
            request.agent, request.session, request.key, request.grant, request.target
        )

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> ChannelAnswer:
        # Signed at each attempt: the signature is fresh for a short while.
        now = self._clock.now().timestamp()
        signed = sign_agent_header(self._caller, self._secret, now).decode()
        own = {AGENT_HEADER.decode(): signed}
        return await self._channel.post(path, body, {**headers, **own})

    async def aclose(self) -> None: ...


async def _stream(
    client: ChannelClient,
    completion: CompletionRequest,
    on_piece: Callable[[AnswerPiece], None],
) -> CompletionResponse:
    async with client.stream(completion) as chunks:
        async for chunk in chunks:
            if piece := _piece(chunk):
                on_piece(piece)
        return chunks.response()


def _piece(chunk: StreamChunk) -> AnswerPiece | None:
    text = chunk.text or chunk.refusal
    return AnswerPiece(_utf8(text), _utf8(chunk.reasoning)) if text or chunk.reasoning else None


def _completion_request(request: ModelCallRequest) -> CompletionRequest:
    return CompletionRequest(
        messages=[_message(message) for message in request.messages],
        route=request.model,
        tools=[
            ToolDefinition(tool.name, tool.description, tool.parameters)
            for tool in request.tools
        ],
        user=request.user,
        # All messages of a session stay on one arm.
        caller=Caller(sticky=request.session, timeout_s=request.timeout_s),
    )


def _message(message: ContextMessage) -> Message:
    content = message.content
    calls = tuple(
        ToolRequest(call.id, call.name, call.arguments, call.extra)
        for call in message.tool_calls
    )
    return Message(
        message.role.value,
        content if isinstance(content, str) else [_part(part) for part in content],
        calls,
        message.response_to,
        message.extra,
    )


def _part(part: Mapping[str, object]) -> Text | Image:
    image = part.get("image_url")
    if isinstance(image, Mapping):
        return Image(str(image["url"]), str(image.get("detail", "")))
    return Text(str(part["text"]))


def _answer(response: CompletionResponse) -> ModelCallAnswer:
    served, used = response.served, response.usage
    return ModelCallAnswer(
        text=_utf8(response.text or response.refusal),
        finish_reason=response.finish_reason,
        served=ServedBy(route=served.route, target=served.target, request_id=served.request_id),
        tool_calls=tuple(
            MessageToolCall(
                _utf8(call.id), _utf8(call.name), _utf8(call.arguments_text), call.extra
            )
            for call in response.tool_requests
        ),
        usage=MessageUsage()
        if used is None
        else MessageUsage(used.input_tokens, used.output_tokens, used.cached_tokens),
        extra=response.message_extra,
    )


def _utf8(text: str) -> str:
    """A model's words as a client can be sent them. JSON may hold half a character, which is no
    UTF-8: two halves that belong together become one, any other becomes �.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
