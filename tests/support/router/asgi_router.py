"""Calls a router as ASGI in the test's process: `Door`, and `Place` with answers by model."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from harness.app.store.router_store import RouterStore
from harness.gate.online.guardrails import ExposureRule
from harness.providers.models.capabilities import Capabilities
from harness.providers.target import NO_DATA_CLASSES, DataClasses
from harness.routing.route_settings import RouteSettings
from harness.routing.settings import AgentSettings, RouterSettings
from harness.routing.table import Snapshot
from router.frame.asgi import BODY, HEAD_FACTS, WATCH_AFTER_S
from router.observers.request_tracing import Tracing
from router.recording.recorder import Recorder
from router.recording.shared_files import SharedMarks
from router.recording.spool import Spool
from router.server.app import Router
from router.snapshot.holder import SnapshotHolder
from router.upstream.learned_repairs import LearnedFields
from router.upstream.transport import TransportFactory, UpstreamRequest
from router.upstream.transports import Transports
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import (
    ScriptedTransport,
    ScriptedTurn,
)
from tests.support.providers.scripted_upstream import completion
from tests.support.router.live_router import (
    INCUMBENT,
    KEY,
    QUICK,
    SECRET,
    SwitchableStore,
    provider,
    snapshot,
    upstream_keys,
)

AUTH = (b"authorization", f"Bearer {KEY}".encode())
CHAT = "/v1/chat/completions"
Script = dict[str, ScriptedTurn | Callable[[], ScriptedTurn]]
ASK = b'{"model":"support","messages":[{"role":"user","content":"hi"}]}'


class Door:
    """A router before a scripted provider; `call` is one request. script: what the provider
    answers to a request, or its answers by model. moves: its transports move conversations.
    """

    def __init__(
        self,
        folder: Path,
        script: Callable[[UpstreamRequest], ScriptedTurn] | Script = lambda _: completion(),
        settings: RouterSettings = QUICK,
        *,
        booted: bool = True,
        first: Snapshot | None = None,
        classes: DataClasses = NO_DATA_CLASSES,
        transports: TransportFactory | None = None,
        tracing: Tracing | None = None,
        agents: AgentSettings | None = None,
        moves: bool = False,
        begun: SharedMarks | None = None,
    ) -> None:
        # By head, as a connection keeps them of its latest one.
        self._facts: dict[object, dict[str, Any]] = {}
        self.kept = SwitchableStore(first or snapshot("http://127.0.0.1:1/v1"))
        store = cast("RouterStore", self.kept)
        self.clock = clock = ManualClock()
        self.holder = SnapshotHolder(
            store,
            folder / "snapshot.json",
            keys_of=upstream_keys,
            classes=classes,
        )
        if booted:
            self.holder.boot()
        self.recorder = Recorder(
            store,
            Spool(folder / "spool"),
            worker="w",
            clock=clock,
        )
        self.script = script
        self.asked: Counter[str] = Counter()
        self.transport = ScriptedTransport(self._script_turn)
        learned: LearnedFields = dict
        if moves:
            moving = Transports(settings, self.transport, clock.monotonic)
            transports = moving
            learned = moving.repairs.fields
        self.app = Router(
            self.holder,
            self.recorder,
            transports or (lambda _: self.transport),
            settings,
            SECRET,
            clock,
            tracing=tracing,
            agents=agents,
            learned=learned,
            marks=begun,
        )

    async def call(
        self,
        path: str,
        *pieces: bytes,
        method: str = "POST",
        headers: tuple[tuple[bytes, bytes], ...] = (AUTH,),
        leave: bool = False,
        peer: str = "192.0.2.1",
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body.

        Args:
            leave: the caller hangs up instead of sending a body.
            peer: the address that is connected.
        """
        sent: list[Any] = []
        waiting = [
            {
                "type": "http.request",
                "body": piece,
                "more_body": True,
            }
            for piece in pieces[:-1]
        ]
        last = pieces[-1] if pieces else b""
        waiting.append(
            {
                "type": "http.request",
                "body": last,
                "more_body": False,
            }
        )
        if leave:
            waiting = [{"type": "http.disconnect"}]

        async def receive() -> Any:
            if waiting:
                return waiting.pop(0)
            await asyncio.Event().wait()
            return None

        async def send(message: Any) -> None:
            sent.append(message)

        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": list(headers),
            "client": (peer, 4711),
            HEAD_FACTS: self._facts.setdefault((path, method, headers), {}),
        }
        if len(pieces) == 1 and not leave:
            scope[BODY] = last
        await self.app(scope, receive, send)
        if not sent:
            return 0, {}, b""
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), body

    def _script_turn(self, request: UpstreamRequest) -> ScriptedTurn:
        if callable(self.script):
            return self.script(request)
        model = json.loads(request.body)["model"]
        self.asked[model] += 1
        found = self.script[model]
        return found if isinstance(found, ScriptedTurn) else found()

    async def metrics(self) -> dict[str, float]:
        _, _, body = await self.call("/metrics", method="GET")
        lines = (line for line in body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines)}

    async def state(self, model: str = INCUMBENT) -> int:
        """0 closed, 1 half open, 2 open."""
        return int((await self.metrics())[f'swapproof_breaker_state{{target="up/{model}"}}'])


def code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


class Place(Door):
    """A door whose provider answers by model. route: its route's settings. models: what the
    provider's models can.
    """

    script: Script

    def __init__(
        self,
        folder: Path,
        script: Script,
        settings: RouterSettings = QUICK,
        *,
        fallback: bool = False,
        weight_bps: int = 0,
        route: RouteSettings | None = None,
        models: Mapping[str, Capabilities] | None = None,
        kind: str = "custom",
        more_keys: tuple[str, ...] = (),
        moves: bool = False,
        rule: ExposureRule | None = None,
    ) -> None:
        self.callers = 0
        up = provider(
            "http://up",
            kind=kind,
            more_api_key_envs=more_keys,
            models=dict(models or {}),
        )
        first = snapshot(
            "http://up",
            weight_bps=weight_bps,
            fallback=fallback,
            settings=route,
            rule=rule or ExposureRule(block_size=1),
            providers=[up],
        )
        super().__init__(
            folder,
            script,
            settings,
            moves=moves,
            first=first,
        )

    async def ask(self, body: bytes = ASK, times: int = 1) -> tuple[int, dict[bytes, bytes]]:
        for _ in range(times):
            # Each is another caller.
            self.callers += 1
            sticky = (b"x-swapproof-sticky", b"%d" % self.callers)
            status, headers, _ = await self.call(
                CHAT,
                body,
                headers=(AUTH, sticky),
            )
        return status, headers


async def leaving(door: Door, body: bytes) -> None:
    begun = iter(
        [
            {
                "type": "http.request",
                "body": body,
                "more_body": False,
            }
        ]
    )

    async def receive() -> Any:
        message = next(begun, None)
        if message is None:
            await asyncio.sleep(WATCH_AFTER_S)
            return {"type": "http.disconnect"}
        return message

    async def send(_: Any) -> None: ...

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "headers": [AUTH],
    }
    await door.app(scope, receive, send)
