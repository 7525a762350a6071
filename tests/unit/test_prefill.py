"""A request whose last turn is the assistant's means that the answer continues it, or that a
further answer follows. Only targets that read it in the same way get it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.providers.models.capabilities import Capabilities, Endpoint, Needs, Prefill
from harness.providers.models.capabilities import missing_capabilities as missing
from router.conversation.prefill_forms import is_open_answer, mark_prefill
from tests.support.providers.scripted_upstream import completion
from tests.support.router.asgi_router import CHAT, Place
from tests.support.router.live_router import CANDIDATE, FALLBACK, INCUMBENT

OPEN = {"role": "assistant", "content": "{"}
ASKED = {"role": "user", "content": "hi"}
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
CONTINUES, ANEW, PREFIX, REFUSES = (
    Prefill.CONTINUES,
    Prefill.BEGINS_ANEW,
    Prefill.PREFIX,
    Prefill.REFUSES,
)


class Scene(Place):
    """A route with an incumbent, a fallback and perhaps a canary, each with its reading."""

    def __init__(self, folder: Path, **readings: Any) -> None:
        names = {"incumbent": INCUMBENT, "fallback": FALLBACK, "candidate": CANDIDATE}
        weight = 10_000 if "candidate" in readings else 0
        super().__init__(
            folder,
            {name: completion() for name in names.values()},
            fallback=True,
            weight_bps=weight,
            models={names[place]: Capabilities(prefill=way) for place, way in readings.items()},
            moves=True,
        )

    async def send(self, path: str = CHAT, last: object = OPEN, **more: Any) -> tuple[int, Any]:
        field = "input" if path == RESPONSES else "messages"
        limit = {"max_tokens": 100} if path == MESSAGES else {}
        body = {"model": "support", field: [ASKED, last], **limit, **more}
        status, headers, answer = await self.call(path, json.dumps(body).encode())
        target = dict(headers).get(b"x-swapproof-target", b"").decode().partition("/")[2]
        return status, target if status == 200 else json.loads(answer)["error"]["message"]

    @property
    def sent(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.transport.seen[-1].body)
        return found


async def test_a_message_passes_over_targets_that_cannot_continue_its_last_turn(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, incumbent=ANEW, fallback=CONTINUES)

    assert await scene.send(MESSAGES) == (200, FALLBACK)
    assert await scene.send(MESSAGES, ASKED) == (200, INCUMBENT)


async def test_a_message_without_a_target_that_continues_is_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, incumbent=ANEW, fallback=REFUSES)

    status, why = await scene.send(MESSAGES)

    assert status == 422
    assert f"{INCUMBENT}: lacks prefill" in why
    assert f"{FALLBACK}: lacks prefill" in why
    assert not scene.transport.seen


async def test_a_chat_means_what_its_incumbent_does(tmp_path: Path) -> None:
    anew = Scene(tmp_path / "anew", incumbent=ANEW, fallback=CONTINUES, candidate=CONTINUES)
    continues = Scene(tmp_path / "on", incumbent=CONTINUES, fallback=ANEW, candidate=ANEW)

    assert await anew.send() == (200, INCUMBENT)
    assert await continues.send() == (200, INCUMBENT)


async def test_a_chat_that_says_so_is_continued_wherever_it_goes(tmp_path: Path) -> None:
    scene = Scene(tmp_path, incumbent=ANEW, fallback=CONTINUES)

    assert await scene.send(last={**OPEN, "prefix": True}) == (200, FALLBACK)
    assert scene.sent["messages"][-1] == OPEN
    assert await scene.send(continue_final_message=True) == (200, FALLBACK)
    assert "continue_final_message" not in scene.sent


async def test_a_response_begins_anew(tmp_path: Path) -> None:
    scene = Scene(tmp_path, incumbent=CONTINUES, fallback=ANEW)

    assert await scene.send(RESPONSES) == (200, FALLBACK)


async def test_a_candidate_that_cannot_continue_never_counts(tmp_path: Path) -> None:
    scene = Scene(tmp_path, incumbent=CONTINUES, candidate=ANEW)

    assert await scene.send(MESSAGES) == (200, INCUMBENT)
    assert await scene.send(MESSAGES, ASKED) == (200, CANDIDATE)


@pytest.mark.parametrize(
    ("form", "turn", "fields"),
    [
        (PREFIX, {**OPEN, "prefix": True}, {}),
        (Prefill.PARTIAL, {**OPEN, "partial": True}, {}),
        (
            Prefill.FLAGS,
            OPEN,
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
        (CONTINUES, OPEN, {}),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, CHAT])
async def test_each_kind_gets_its_own_mark(
    tmp_path: Path, form: Prefill, turn: Any, fields: Any, path: str
) -> None:
    scene = Scene(tmp_path, incumbent=form)

    marked = OPEN if path == MESSAGES else {**OPEN, "prefix": True}
    assert await scene.send(path, marked) == (200, INCUMBENT)

    assert scene.sent["messages"][-1] == turn
    assert {name: scene.sent[name] for name in fields} == fields


def test_a_target_of_unknown_form_gets_the_client_s_own_marks() -> None:
    body = json.dumps({"messages": [ASKED, {**OPEN, "prefix": True}]}).encode()

    assert mark_prefill(body, Prefill.UNKNOWN) is body


@pytest.mark.parametrize(
    "turn",
    [
        ASKED,
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1"}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}, {"type": "server_tool_use"}],
        },
        {"role": "assistant", "content": 5},
        {"role": "assistant", "content": True},
        {"role": "assistant", "content": {"text": "a"}},
        {"type": "function_call", "name": "f"},
        "assistant",
    ],
)
def test_a_turn_with_a_call_or_without_a_text_is_no_prefill(turn: object) -> None:
    assert not is_open_answer(turn)


def test_an_unknown_reading_counts_as_present() -> None:
    unknown = Capabilities()

    assert missing(Needs(Endpoint.CHAT, prefill=True), unknown) == ()
    assert missing(Needs(Endpoint.CHAT, new_answer=True), unknown) == ()
