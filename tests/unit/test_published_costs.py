"""The costs of published answers at published prices: `tests/world/costs`."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from harness.providers.models.capabilities import Endpoint
from harness.providers.models.catalogue import LitellmTable
from harness.providers.target import Price
from router.frame.body import read_request
from router.frame.json_spans import parse_object
from router.protocols.answers import TokenUsage
from router.protocols.endpoints import DIALECTS
from router.upstream.translate.request_screening import screen_request
from router.upstream.translate.translation import REHEARSAL
from router.upstream.translate.transport import load_translation

pytestmark = pytest.mark.req("B11")

FILE = Path(__file__).parent.parent / "world/costs/examples.yaml"
ANSWERS: Mapping[str, Mapping[str, Any]] = yaml.safe_load(FILE.read_text("utf-8"))["answers"]
PROTOCOLS: Final = {
    "chat": Endpoint.CHAT,
    "messages": Endpoint.MESSAGES,
    "responses": Endpoint.RESPONSES,
}
# The rest of an answer in each protocol.
WHOLE: Final[Mapping[str, dict[str, Any]]] = {
    "chat": {
        "id": "c",
        "model": "m",
        "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
    },
    "messages": {
        "id": "m",
        "model": "m",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "ok"}],
        "stop_reason": "end_turn",
    },
    "responses": {
        "id": "r",
        "model": "m",
        "status": "completed",
        "output": [
            {
                "type": "message",
                "content": [{"type": "output_text", "text": "ok"}],
            }
        ],
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}],
        "modelVersion": "m",
    },
    "bedrock": {
        "output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}},
        "stopReason": "end_turn",
    },
}


def price_of(row: Mapping[str, Any], folder: Path) -> Price:
    file = folder / "table.json"
    file.write_text(json.dumps({"m": row}), encoding="utf-8")
    [entry] = LitellmTable(file=file).catalogue()
    assert entry.price is not None
    return entry.price


def translated(kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    translation = load_translation(kind)
    ask = translation.ask(screen_request(copy.deepcopy(REHEARSAL), kind), stream=False)
    return dict(translation.answer(ask, answer))


def usage_of(example: Mapping[str, Any]) -> tuple[TokenUsage, bool]:
    """Reads an example's usage, and whether it is the final count."""
    for name, endpoint in PROTOCOLS.items():
        if events := example.get(f"{name}_events"):
            request = read_request(b'{"model": "m", "stream": true}', endpoint)
            stream = DIALECTS[endpoint].stream(request, None)
            for event in events:
                kind = f"event: {event['type']}\n" if "type" in event else ""
                stream.feed(f"{kind}data: {json.dumps(event)}\n\n".encode())
            if name == "chat" and stream.ended:
                stream.feed(b"data: [DONE]\n\n")
            assert not stream.failure
            return stream.used(), stream.is_whole
    name = next(name for name in WHOLE if name in example)
    own = {"usageMetadata": example[name]} if name == "gemini" else example[name]
    answer = {**copy.deepcopy(WHOLE[name]), **copy.deepcopy(own)}
    if through := example.get("through"):
        name = "chat"
        answer = translated(through, answer)
    usage = DIALECTS[PROTOCOLS[name]].checked(parse_object(json.dumps(answer).encode()))
    assert usage is not None
    return usage, True


@pytest.mark.parametrize("name", ANSWERS)
def test_a_published_answer_has_its_cost_or_none(name: str, tmp_path: Path) -> None:
    example = ANSWERS[name]

    usage, is_whole = usage_of(example)
    cost_usd = price_of(example["price"], tmp_path).answer_usd(*usage)

    assert cost_usd == (None if example["usd"] is None else pytest.approx(example["usd"]))
    assert is_whole is not example.get("bounded", False)


def test_every_example_names_its_source() -> None:
    assert len(ANSWERS) >= 10
    assert all(example["source"] for example in ANSWERS.values())
