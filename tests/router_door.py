"""The router's front door, called as ASGI in this process, before a scripted provider."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from harness.domain.routing import Snapshot
from harness.domain.settings import RouterSettings
from harness.ports import Store
from harness.runtime.clock import ManualClock
from router.app import Router, build
from router.ports import UpstreamRequest
from router.recorder import Recorder
from router.snapshot import SnapshotHolder
from router.spool import Spool
from router.transport.scripted import Scripted, Turn
from tests.router_upstream import completion
from tests.router_world import KEY, QUICK, SECRET, SwitchableStore, snapshot

AUTH = (b"authorization", f"Bearer {KEY}".encode())
CHAT = "/v1/chat/completions"
ASK = b'{"model":"support","messages":[{"role":"user","content":"hi"}]}'


class Door:
    """A router before a scripted provider; `call` is one request."""

    def __init__(
        self,
        folder: Path,
        script: Callable[[UpstreamRequest], Turn] = lambda _: completion(),
        settings: RouterSettings = QUICK,
        *,
        booted: bool = True,
        first: Snapshot | None = None,
    ) -> None:
        self.kept = SwitchableStore(first or snapshot("http://127.0.0.1:1/v1"))
        store = cast("Store", self.kept)
        self.clock = clock = ManualClock()
        self.holder = SnapshotHolder(store, folder / "snapshot.json")
        if booted:
            self.holder.boot()
        self.recorder = Recorder(
            store, Spool(folder / "spool"), worker="w", clock=clock, live_rollouts=frozenset
        )
        self.transport = Scripted(script)
        self.app = cast(
            "Router",
            build(
                self.holder, self.recorder, lambda _: self.transport, settings, SECRET, clock
            ),
        )

    async def call(
        self,
        path: str,
        *pieces: bytes,
        method: str = "POST",
        headers: tuple[tuple[bytes, bytes], ...] = (AUTH,),
        leave: bool = False,
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body. leave: the caller hangs up instead of sending a body."""
        sent: list[Any] = []
        waiting = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:-1]
        ]
        last = pieces[-1] if pieces else b""
        waiting.append({"type": "http.request", "body": last, "more_body": False})
        if leave:
            waiting = [{"type": "http.disconnect"}]

        async def receive() -> Any:
            if waiting:
                return waiting.pop(0)
            await asyncio.Event().wait()
            return None

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        await self.app(scope, receive, send)
        if not sent:
            return 0, {}, b""
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), body


def code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])
