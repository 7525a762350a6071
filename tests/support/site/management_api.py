"""Sends requests to the management API as each role, and holds answers to its schema."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import uvicorn
from jsonschema import Draft202012Validator

from harness.app.configuration import configuration
from harness.app.installation import Installation
from harness.frame import package_data
from harness.frame.calm_server import CalmServer
from harness.frame.people.access import OPERATOR, Role
from harness.frame.runtime.encryption import FernetCipher, new_key
from harness.interfaces.api.app import PREFIX, build_app
from harness.interfaces.api.frame.access import SERVER
from harness.operations import keys
from harness.providers.calls.probe import ProbeReply
from harness.providers.ports import ProviderProbe
from harness.routing.proposal import Proposal, ProposalPhase
from tests.support.control.control_plane import SmallInstallation
from tests.support.control.known_secrets import SECRET
from tests.support.providers.scripted_probe import ScriptedProviderProbe

# Role to the name of the person who has it: ann proposes, ben approves.
PEOPLE = {
    "viewer": "vera",
    "proposer": "ann",
    "approver": "ben",
    "admin": "ada",
}
# Every app documents the same; to write it takes longer than most tests.
DOCUMENT: dict[str, Any] = {}
# Every provider answers, and lists no models.
UNKNOWING = ScriptedProviderProbe(
    lambda *_: ProbeReply(
        200,
        0.01,
        b"{}",
        first_s=0.02,
        skew_s=0.0,
    )
)


class Door:
    """Sends requests as somebody with a role. app: the real one, all layers on."""

    def __init__(
        self,
        world: SmallInstallation,
        *,
        metrics_token: str | None = None,
        turn_age_s: Callable[[], float | None] | None = None,
        probe: ProviderProbe = UNKNOWING,
    ) -> None:
        self.world = world
        self.app = build_app(
            installation(world, probe),
            metrics_token=metrics_token,
            turn_age_s=turn_age_s,
        )
        self.keys = {
            role: keys.create_key(
                world.context(),
                OPERATOR,
                name,
                secret=SECRET,
                role=Role[role.upper()],
            )[1]
            for role, name in PEOPLE.items()
        }

    @property
    def document(self) -> dict[str, Any]:
        if not DOCUMENT:
            DOCUMENT.update(self.app.openapi())
        return DOCUMENT

    def send(
        self,
        method: str,
        path: str,
        *,
        role: str | None = "admin",
        headers: dict[str, str] | None = None,
        address: str = "127.0.0.1",
        **options: Any,
    ) -> httpx.Response:
        """role None: without a key. The path is below /api/v1 unless it starts with //."""
        sent = dict(headers or {})
        if role is not None:
            sent.setdefault("authorization", f"Bearer {self.keys[role]}")
        url = path[1:] if path.startswith("//") else PREFIX + path

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(address, 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
                return await http.request(
                    method,
                    url,
                    headers=sent,
                    **options,
                )

        answer = asyncio.run(call())
        self._check(method, answer)
        return answer

    def get(self, path: str, **options: Any) -> Any:
        return good(self.send("GET", path, **options))

    def post(
        self,
        path: str,
        body: object = None,
        **options: Any,
    ) -> Any:
        return good(
            self.send(
                "POST",
                path,
                json=body,
                **options,
            )
        )

    def _check(self, method: str, answer: httpx.Response) -> None:
        schema = self._schema(method, answer)
        if schema is not None:
            root = {**schema, "components": self.document["components"]}
            Draft202012Validator(root).validate(answer.json())

    def _schema(self, method: str, answer: httpx.Response) -> dict[str, Any] | None:
        responses = self._operation(method, answer.url.path).get("responses")
        if answer.status_code == 204 or responses is None:
            return None
        response = responses.get(str(answer.status_code), responses["default"])
        schema: dict[str, Any] = response["content"]["application/json"]["schema"]
        return schema

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        for template, operations in self.document["paths"].items():
            pattern = re.sub(r"\{model\}", ".+", template)
            pattern = re.sub(r"\{\w+\}", "[^/]+", pattern)
            if re.fullmatch(pattern, path) and method.lower() in operations:
                found: dict[str, Any] = operations[method.lower()]
                return found
        return {}


def installation(world: SmallInstallation, probe: ProviderProbe = UNKNOWING) -> Installation:
    """Its adapters are the world's.

    Args:
        probe: what asks providers.
    """
    settings = configuration.load_settings(
        None, {}, defaults=package_data.path("config/default.yaml")
    )
    made = Installation(settings, SECRET, world.clock)
    key = new_key()
    context = replace(
        world.context(),
        cipher=FernetCipher(lambda: [key]),
        environ={"OPENAI_API_KEY": "sk-of-the-environment"},
        probe=probe,
    )
    made.__dict__.update(store=world.store, context=context)
    return made


def good(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def awaiting_approval(world: SmallInstallation) -> Proposal:
    proposal = world.decided("sim/better")
    assert proposal.phase is ProposalPhase.AWAITING_APPROVAL
    return proposal


def in_canary(world: SmallInstallation) -> Proposal:
    proposal = world.decided("sim/better")
    assert proposal.phase is ProposalPhase.CANARY
    return proposal


@contextmanager
def served(app: Any) -> Iterator[str]:
    server = CalmServer(uvicorn.Config(app, port=0, **SERVER))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
