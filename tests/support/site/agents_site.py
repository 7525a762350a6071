"""Runs the agents process and its router before a scripted provider."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    Upstream,
    running_upstream,
)
from tests.support.router.router_process import Routed, routed
from tests.support.site.processes import free_port

CHAT = "chat"
OPENAI_KEY = "OPENAI_API_KEY"


@dataclass
class AgentsSite:
    world: Routed
    upstream: Upstream
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.world.url, timeout=120)

    def start(self) -> None:
        self.world.place.start("agents", "serve", "agents", wait_for="/readyz")

    def log(self) -> str:
        return self.world.place.log("agents")

    def create(self, **fields: object) -> str:
        body = {
            "name": "support",
            "model": CHAT,
            **fields,
        }
        return f"/agents/{good(self.client.post('/agents', json=body))['id']}"

    def session(self, **fields: object) -> str:
        agent = self.create(**fields)
        return f"{agent}/sessions/{good(self.client.post(f'{agent}/sessions', json={}))['id']}"

    def send(
        self,
        session: str,
        content: object,
        **fields: object,
    ) -> httpx.Response:
        """Sends a message.

        Args:
            fields: `headers` of the request; the others are fields of the message.
        """
        headers: Any = fields.pop("headers", {})
        body = {
            "role": "user",
            "content": content,
            **fields,
        }
        return self.client.post(f"{session}/messages", json=body, headers=headers)

    def messages(self, session: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = good(self.client.get(f"{session}/messages"))["items"]
        return found


def good(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    return error


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def calling(*calls: tuple[str, str, str]) -> ScriptedTurn:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": id_,
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for id_, name, arguments in calls
        ],
    }
    body = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": message,
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 12,
        },
    }
    return ScriptedTurn(steps=(json.dumps(body).encode(),))


@contextmanager
def agents_site(
    folder: Path,
    *,
    sections: Mapping[str, object] | None = None,
    with_openai: bool = False,
    with_control: bool = False,
    prices: Mapping[str, object] | None = None,
    database_url: str | None = None,
    **agents: object,
) -> Iterator[AgentsSite]:
    """Both processes run.

    Args:
        agents: settings of the section, beside `open_on_loopback`.
        sections: other ones of the file.
        with_openai: the scripted provider is there as `openai`, too, with the key in
            OPENAI_API_KEY.
        with_control: the control plane runs, too, which signs consents to literal models.
        prices: of the provider's models.
        database_url: by default SQLite in the folder.
    """
    port = free_port()
    section = {
        "open_on_loopback": True,
        "port": port,
        **agents,
    }
    given: dict[str, Any] = {"agents": section, **(sections or {})}
    with running_upstream() as upstream:
        if with_openai:
            named = {
                "kind": "openai",
                "api_base": upstream.url,
                "api_key_env": OPENAI_KEY,
            }
            given["providers"] = {
                "sim": {"kind": "sim", "api_base": upstream.url},
                "openai": named,
            }
        if prices is not None:
            sim = {
                "kind": "sim",
                "api_base": upstream.url,
                "prices": prices,
            }
            given["providers"] = {"sim": sim}
        provider = upstream.url.removesuffix("/v1")
        with routed(folder, provider, database_url, **given) as world:
            world.place.ports["agents"] = port
            world.start()
            if with_control:
                world.place.start("control", "serve", "control", wait_for="/readyz")
            made = AgentsSite(world, upstream)
            made.start()
            with made.client:
                yield made
