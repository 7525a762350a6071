"""Speaks to the agents API in `swapgate demo agents`, as an application would: plain HTTP at
the router's address, no key. It runs the application's own function when the model calls it.
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from harness.app.demo.agents_environment import ROUTE, SPARE_ROUTE
from harness.domain.errors import SwapgateError

TIMEOUT_S: Final = 120.0
ORDERS: Final = {
    "A-1815": {"item": "brass calculator", "state": "delivered", "on": "12 November"},
}
FIND_ORDER: Final = {
    "name": "find_order",
    "description": "What is known of an order.",
    "parameters": {"type": "object", "properties": {"order": {"type": "string"}}},
}
AGENT: Final = {
    "name": "concierge",
    "description": "Helps customers with their orders",
    "model": ROUTE,
    "tools": [{"type": "function", "function": FIND_ORDER}, "switch_model", "spawn"],
    "config": {"fallbackModel": SPARE_ROUTE},
}


@dataclass
class AgentsDemoClient:
    """One conversation."""

    base_url: str
    session: str = ""  # its id
    messages: str = ""  # its messages' path

    def open_session(self) -> None:
        agent = self._post("/agents", AGENT)["id"]
        self.session = self._post(f"/agents/{agent}/sessions", {"userId": "ada"})["id"]
        self.messages = f"/agents/{agent}/sessions/{self.session}/messages"

    def say(self, text: str) -> dict[str, Any]:
        """The answer to a message, once no call of the application's function is open."""
        answer = self._post(self.messages, {"role": "user", "content": text})
        while calls := answer["openCalls"]:
            for call in calls:
                order = json.loads(call["arguments"])["order"]
                result = json.dumps(ORDERS.get(order, {"error": "no such order"}))
                body = {"role": "tool", "toolCallId": call["id"], "content": result}
                answer = self._post(self.messages, body)
        return answer

    def _post(self, path: str, body: object) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own router
            f"{self.base_url}{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
                answer: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise SwapgateError(f"POST {path} answered {error.code}: {text[:500]}") from None
        return answer
