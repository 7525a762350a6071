"""The demo's agent: a loop of tool calls by the official openai client, whose model is swapped
in the middle of it, and swapped back. Each turn sends the whole conversation.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openai import OpenAI, OpenAIError

from harness.domain.errors import SwapgateError

TASK: Final = "Give the customer of order A-1001 the money back."
# By tool: its arguments, and what it returns. The models' script in models.yaml knows both.
TOOLS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "find_order": (("order",), "The customer paid 42 EUR."),
    "refund": (("order", "eur"), "Done: receipt R-77."),
}
ANSWER: Final = "Order A-1001: 42 EUR went back, receipt R-77."
DEFINITIONS: Final[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"} for argument in arguments},
            },
        },
    }
    for name, (arguments, _) in TOOLS.items()
]
MOVED_S = 20.0


@dataclass
class DemoAgent:
    """One conversation with a route. served: the model of each turn."""

    base_url: str  # of the router, with `/v1`
    key: str
    route: str
    say: Callable[[str], None]
    turns: list[Any] = field(default_factory=lambda: [{"role": "user", "content": TASK}])
    served: list[str] = field(default_factory=list)
    answer: str = ""

    def take_turn(self, model: str) -> None:
        """Waits until the route is this model's, then goes on with the conversation. Raises
        SwapgateError where it cannot.
        """
        with OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0) as client:
            deadline = time.monotonic() + MOVED_S
            question = [{"role": "user", "content": "Who are you?"}]
            while self._send(client, "visitor", question)[0] != model:
                if time.monotonic() > deadline:
                    raise SwapgateError(f"{self.route} is not served by {model}")
                time.sleep(0.1)
            served, message = self._send(client, "agent", self.turns)
        self.served.append(served)
        self.turns.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or ():
            name, arguments = call.function.name, json.loads(call.function.arguments)
            given = ", ".join(f"{key}={value}" for key, value in arguments.items())
            self.say(f"agent on {self.route}: {served} calls {name}({given})")
            result = {"role": "tool", "tool_call_id": call.id, "content": TOOLS[name][1]}
            self.turns.append(result)
        if not message.tool_calls:
            self.answer = message.content or ""
            self.say(f"agent on {self.route}: {served} answers: {self.answer}")

    def _send(self, client: OpenAI, user: str, turns: Any) -> tuple[str, Any]:
        try:
            raw = client.chat.completions.with_raw_response.create(
                model=self.route, messages=turns, tools=DEFINITIONS, user=user
            )
        except OpenAIError as error:
            raise SwapgateError(f"the agent on {self.route} got no answer: {error}") from None
        return raw.headers["x-swapgate-target"], raw.parse().choices[0].message

    def survived(self, *models: str) -> bool:
        """Whether these models served it in turn, and the last knew what the first two did."""
        return (self.served, self.answer) == ([*models], ANSWER)
