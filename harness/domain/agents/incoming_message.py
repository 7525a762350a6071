"""An incoming message is what a client sends to a session: a user's text and images, or the
result of a function that the model asked the client to run. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.domain.agents.message import MessageRole, MessageToolCall
from harness.domain.errors import Conflict, InputError

Content = str | tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A client's message whose form is right."""

    role: MessageRole
    content: Content
    response_to: str = ""  # of a tool's message, the id of the call that it answers


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
