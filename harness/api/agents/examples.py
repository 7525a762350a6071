"""Examples of requests and answers in the agents API's OpenAPI document; tests execute them."""

from collections.abc import Mapping
from typing import Any, Final

Examples = Mapping[str, Any]

AGENT_EXAMPLES: Final[dict[str, Any]] = {
    "route": {
        "summary": "An agent on a route",
        "value": {
            "name": "support",
            "description": "Answers customers",
            "model": "chat",
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "find_order",
                        "description": "Finds a customer's order",
                        "parameters": {
                            "type": "object",
                            "properties": {"number": {"type": "string"}},
                            "required": ["number"],
                        },
                    },
                }
            ],
        },
    },
    "literal": {
        "summary": "An agent on a literal model, with an approver's key",
        "value": {
            "name": "research",
            "description": "Reads papers",
            "model": "openai:gpt-4o-mini",
            "tools": [],
            "config": {"fallbackModel": "chat"},
        },
    },
}
PATCH_EXAMPLES: Final[dict[str, Any]] = {
    "describe": {"summary": "Another description", "value": {"description": "Helps customers"}},
    "model": {"summary": "Another route", "value": {"model": "chat"}},
}
SESSION_EXAMPLES: Final[dict[str, Any]] = {
    "session": {
        "summary": "A conversation of one user",
        "value": {"userId": "user-42", "metadata": {"channel": "web"}},
    },
}
SWITCH_EXAMPLES: Final[dict[str, Any]] = {
    "list": {"summary": "What there is to choose from", "value": {"action": "list"}},
    "switch": {
        "summary": "Ask a person for another model",
        "value": {"action": "switch", "model": "claude sonnet", "reason": "long contracts"},
    },
}
MESSAGE_EXAMPLES: Final[dict[str, Any]] = {
    "text": {
        "summary": "A text",
        "value": {"role": "user", "content": "Where is my order 1001?"},
    },
    "stream": {
        "summary": "A text, answered as server-sent events",
        "value": {"role": "user", "content": "Tell me more.", "stream": True},
    },
    "image": {
        "summary": "A text and an image",
        "value": {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is on this picture?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
                },
            ],
        },
    },
}
MESSAGE_EVENTS: Final = (
    'event: message.started\ndata: {"id": "ms_…", "state": "streaming", …}\n\n'
    'event: message.delta\ndata: {"text": "Your order"}\n\n'
    'event: message.stored\ndata: {"id": "ms_…", "state": "complete", …}\n\n'
    'event: turn.completed\ndata: {"id": "ms_…", "content": "Your order …", "steps": 1, …}\n\n'
)
