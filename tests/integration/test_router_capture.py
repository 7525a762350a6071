"""What the router takes along of a request, and of which."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.domain.operations.access import OptOut
from harness.domain.routing.table import RouteSettings
from router.recording.port import CaptureDraft
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import snapshot

pytestmark = pytest.mark.req("F9", "G4")


class Sampled:
    """A door of a route that captures everything, or nothing."""

    def __init__(
        self, folder: Path, share_bps: int = 10_000, opt_outs: frozenset[OptOut] = frozenset()
    ) -> None:
        settings = RouteSettings(capture_bps=share_bps, data_class="personal")
        first = snapshot("http://up", settings=settings)
        keys = tuple(replace(key, opt_outs=opt_outs) for key in first.keys)
        first = replace(first, keys=keys)
        cleared = {"personal": frozenset({"up"})}
        self.door = Door(folder, lambda _: completion(), first=first, classes=cleared)
        self.drafts: list[CaptureDraft] = []
        self.door.recorder.capture = self.drafts.append  # type: ignore[method-assign, assignment]  # the desk has its own tests

    def ask(
        self, said: str = "hi", headers: Sequence[tuple[bytes, bytes]] = (), **more: object
    ) -> int:
        body = {"model": "support", "messages": [{"role": "user", "content": said}], **more}
        given = json.dumps(body).encode()
        call = self.door.call(CHAT, given, headers=(AUTH, *headers))
        return asyncio.run(call)[0]

    @property
    def counted(self) -> dict[str, int]:
        counters = self.door.recorder.counters.items()
        return {name: n for name, n in counters if name.startswith("captures")}


def test_a_drawn_request_goes_to_the_desk_with_its_answer(tmp_path: Path) -> None:
    sampled = Sampled(tmp_path)

    assert sampled.ask(user="kim") == 200

    (draft,) = sampled.drafts
    assert json.loads(draft.client_body)["messages"][0]["content"] == "hi"
    assert json.loads(draft.answer)["choices"]
    assert (draft.route, draft.arm, draft.endpoint) == ("support", "incumbent", "chat")
    assert (draft.data_class, draft.share_bps, draft.per_day) == ("personal", 10_000, 200)
    assert "kim" not in draft.user_hash


@pytest.mark.req("G3")
@pytest.mark.parametrize(
    ("taken", "ask", "counted"),
    [
        ({"share_bps": 0}, {}, {}),
        ({}, {"headers": [(b"x-swapgate-capture", b"off")]}, {"captures_refused": 1}),
        ({}, {"store": False}, {"captures_refused": 1}),
        ({"opt_outs": frozenset({OptOut.CAPTURE})}, {}, {"captures_refused": 1}),
    ],
    ids=["no share", "client's header", "client's body", "key opted out"],
)
def test_what_is_not_drawn_or_refused_is_not_taken(
    taken: dict[str, Any], ask: dict[str, Any], counted: dict[str, int], tmp_path: Path
) -> None:
    sampled = Sampled(tmp_path, **taken)

    assert sampled.ask(**ask) == 200

    assert sampled.drafts == []
    assert sampled.counted == counted


@pytest.mark.req("F9")
def test_of_a_request_over_the_limit_only_its_size_is_taken(tmp_path: Path) -> None:
    sampled = Sampled(tmp_path)
    limit = RouteSettings().copy_max_bytes

    assert sampled.ask(said="x" * limit) == 200

    (draft,) = sampled.drafts
    assert (draft.client_body, draft.answer, draft.too_large) == ("", "", True)
    assert draft.body_bytes > limit
    assert sampled.counted == {"captures_too_large": 1}
