"""Each endpoint of the router through the official clients, and what they see of a failover."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest

from evals.sim.simulator import Simulator
from harness.routing.route_settings import Stakes
from tests.support.router.live_router import KEY, running_router
from tests.support.router.simulated_router import (
    HELLO,
    HURRIED,
    OTHER,
    OWN,
    SPARE,
    SimScene,
    before_sim,
    served,
    snapshot_of,
)

SAID: Final[Any] = [{"role": "user", "content": HELLO}]
# The simulator speaks every protocol. A provider of the kind `custom` speaks chats alone.
PROTOCOLS: Final = pytest.mark.parametrize("kind", ["sim", "custom"])
WHAT: Final = "The weather in a city, now."
PARAMETERS: Final[Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
# The third target of the chain is the only one that a person marked as capable.
CAPABLE: Final = f"up/{OTHER}"


@dataclass
class Scene(SimScene):
    openai: openai.OpenAI
    claude: anthropic.Anthropic

    def ask(self) -> str:
        """Returns the target that answers a chat."""
        raw = self.openai.chat.completions.with_raw_response.create(
            model="support", messages=SAID
        )
        assert raw.parse().choices[0].message.content
        return served(raw.headers)

    def count(self) -> tuple[int, int, int]:
        """Returns how often each target of the chain was asked."""
        first, second, third = map(self.requests_to, (OWN, SPARE, OTHER))
        return first, second, third


@contextmanager
def clients_of(scene: SimScene) -> Iterator[Scene]:
    url = scene.world.url
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as chats,
        anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as claude,
    ):
        yield Scene(scene.sim, scene.world, chats, claude)


@pytest.fixture
def one_target(
    kind: str,
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
) -> Iterator[Scene]:
    with before_sim(sim, sim_url, tmp_path, own_kind=kind) as scene, clients_of(scene) as made:
        yield made


@contextmanager
def chain(
    sim: Simulator,
    sim_url: str,
    folder: Path,
    stakes: Stakes = Stakes.LOW,
) -> Iterator[Scene]:
    """The route has two fallbacks; the last one is marked as capable."""
    sim.faults.clear()
    sim.stats.clear()
    first = snapshot_of(sim_url)
    targets = {target.name: id_ for id_, target in first.table.targets.items()}
    support = first.table.routes["support"]
    support = replace(
        support,
        fallbacks=(*support.fallbacks, targets[CAPABLE]),
        settings=replace(support.settings, stakes=stakes, capable=(targets[CAPABLE],)),
    )
    table = replace(first.table, routes={"support": support})
    with (
        running_router(replace(first, table=table), folder, HURRIED) as world,
        clients_of(SimScene(sim, world)) as made,
    ):
        yield made


@pytest.mark.spine
@pytest.mark.req("A1")
@PROTOCOLS
def test_the_openai_client_chats_whole_and_as_a_stream(one_target: Scene) -> None:
    create = one_target.openai.chat.completions.create

    whole = create(model="support", messages=SAID)
    chunks = list(create(model="support", messages=SAID, stream=True))

    assert whole.model == "support"
    assert len((whole.choices[0].message.content or "").split()) == 12
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert (one_target.requests_to(OWN), one_target.requests_to(SPARE)) == (2, 0)


@pytest.mark.spine
@pytest.mark.req("A1")
@PROTOCOLS
def test_the_openai_client_gets_one_vector_for_each_text(one_target: Scene) -> None:
    answer = one_target.openai.embeddings.create(
        model="support", input=["a parcel", "a refund", "a parcel"]
    )

    first, second, third = (vector.embedding for vector in answer.data)
    assert first == third != second
    assert len(first) == len(second) > 1
    assert answer.usage.prompt_tokens > 0


@pytest.mark.spine
@pytest.mark.req("A1")
@PROTOCOLS
def test_the_openai_client_uses_responses_whole_and_as_a_stream(one_target: Scene) -> None:
    create = one_target.openai.responses.create

    whole = create(model="support", input=HELLO)
    events = list(create(model="support", input=HELLO, stream=True))

    assert whole.model == "support"
    assert len(whole.output_text.split()) == 12
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    pieces = (event.delta for event in events if event.type == "response.output_text.delta")
    assert "".join(pieces) == whole.output_text


@pytest.mark.spine
@pytest.mark.req("A1")
@PROTOCOLS
def test_the_anthropic_client_sends_messages_whole_and_as_a_stream(one_target: Scene) -> None:
    asked: Any = {"model": "support", "max_tokens": 100, "messages": SAID}

    whole = one_target.claude.messages.create(**asked)
    with one_target.claude.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    (block,) = whole.content
    assert block.type == "text"
    assert len(block.text.split()) == 12
    assert text == block.text
    assert (final.model, final.stop_reason) == ("support", "end_turn")


@pytest.mark.spine
@pytest.mark.req("A1")
@pytest.mark.parametrize("kind", ["sim"])
def test_the_openai_client_completes_a_prompt(one_target: Scene) -> None:
    whole = one_target.openai.completions.create(model="support", prompt=HELLO)
    events = one_target.openai.completions.create(model="support", prompt=HELLO, stream=True)

    assert len(whole.choices[0].text.split()) == 12
    text = "".join(event.choices[0].text for event in events if event.choices)
    assert text == whole.choices[0].text


@pytest.mark.spine
@pytest.mark.req("A1")
@pytest.mark.parametrize("kind", ["sim"])
def test_the_anthropic_client_counts_a_request_s_tokens(one_target: Scene) -> None:
    def count(text: str) -> int:
        said: Any = [{"role": "user", "content": text}]
        counted = one_target.claude.messages.count_tokens(model="support", messages=said)
        return counted.input_tokens

    assert 0 < count(HELLO) < count(f"{HELLO} {HELLO} {HELLO}")


@pytest.mark.spine
@pytest.mark.req("A1")
@pytest.mark.parametrize("kind", ["sim"])
def test_both_clients_list_the_routes_as_models(one_target: Scene) -> None:
    routes = ["other", "support"]

    assert [model.id for model in one_target.openai.models.list()] == routes
    assert [model.id for model in one_target.claude.models.list()] == routes
    assert one_target.openai.models.retrieve("support").id == "support"


@pytest.mark.spine
@pytest.mark.req("B7")
@PROTOCOLS
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_anthropic_client_calls_a_forced_tool_and_sends_its_result(
    one_target: Scene, *, stream: bool
) -> None:
    asked: Any = {
        "model": "support",
        "max_tokens": 100,
        "tools": [{"name": "weather", "description": WHAT, "input_schema": PARAMETERS}],
    }
    choice: Any = {"type": "tool", "name": "weather"}
    messages = one_target.claude.messages
    if stream:
        with messages.stream(messages=SAID, tool_choice=choice, **asked) as events:
            called: Any = events.get_final_message()
    else:
        called = messages.create(messages=SAID, tool_choice=choice, **asked)

    (use,) = (block for block in called.content if block.type == "tool_use")
    assert (called.stop_reason, use.name, set(use.input)) == ("tool_use", "weather", {"city"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "It rains."}
    turns: Any = [
        *SAID,
        {"role": "assistant", "content": [use.model_dump(exclude_none=True)]},
        {"role": "user", "content": [result]},
    ]
    last = messages.create(messages=turns, **asked)
    assert last.stop_reason == "end_turn"
    assert [block.type for block in last.content] == ["text"]


@pytest.mark.spine
@pytest.mark.req("A4", "B3")
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 529},
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 402},
        {"kind": "not_found"},
        {"kind": "reset"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_with_low_stakes_a_request_goes_down_the_chain_in_its_order(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
    fault: dict[str, Any],
) -> None:
    with chain(sim, sim_url, tmp_path) as scene:
        assert scene.ask() == OWN
        scene.fault(**fault)
        assert scene.ask() == SPARE
        scene.fault(model=SPARE, **fault)
        assert scene.ask() == OTHER


@pytest.mark.spine
@pytest.mark.req("A4")
def test_with_high_stakes_only_the_capable_fallback_is_asked_and_the_error_names_each_attempt(
    sim: Simulator, sim_url: str, tmp_path: Path
) -> None:
    with chain(sim, sim_url, tmp_path, Stakes.HIGH) as scene:
        scene.fault("status", status=503)
        assert scene.ask() == OTHER

        scene.fault("status", OTHER, status=503)
        with pytest.raises(openai.InternalServerError) as failed:
            scene.ask()

        body: Any = failed.value.body
        attempts = {attempt["target"] for attempt in body["attempts"]}
        assert attempts == {f"up/{OWN}", CAPABLE}
        assert "not marked capable" in body["message"]
        assert scene.requests_to(SPARE) == 0


@pytest.mark.spine
@pytest.mark.req("A5")
def test_an_overloaded_target_is_asked_once_more_before_the_next_one(
    sim: Simulator, sim_url: str, tmp_path: Path
) -> None:
    with chain(sim, sim_url, tmp_path) as scene:
        scene.fault("status", status=503)

        assert scene.ask() == SPARE
        assert scene.count() == (2, 1, 0)


@pytest.mark.spine
@pytest.mark.req("A5", "B3")
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_malformed_request_is_asked_once_and_its_refusal_reaches_the_client(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
    status: int,
) -> None:
    with chain(sim, sim_url, tmp_path) as scene:
        scene.fault("status", status=status)

        with pytest.raises(openai.APIStatusError) as refused:
            scene.ask()

        assert refused.value.status_code == status
        assert scene.count() == (1, 0, 0)


@pytest.mark.spine
@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", ["reset", "close", "error_in_stream"])
def test_a_stream_that_breaks_before_its_first_word_comes_whole_from_the_next_target(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
    kind: str,
) -> None:
    with chain(sim, sim_url, tmp_path) as scene:
        scene.fault(kind)
        chats = scene.openai.chat.completions
        with chats.with_streaming_response.create(
            model="support", messages=SAID, stream=True
        ) as raw:
            text = "".join(
                chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices
            )

        assert served(raw.headers) == SPARE
        assert len(text.split()) == 12
        assert scene.requests_to(OTHER) == 0


@pytest.mark.spine
@pytest.mark.req("B8")
@pytest.mark.parametrize("kind", ["reset", "close", "error_in_stream"])
def test_a_stream_that_breaks_after_its_first_word_is_an_error_and_never_changes_its_target(
    sim: Simulator,
    sim_url: str,
    tmp_path: Path,
    kind: str,
) -> None:
    with chain(sim, sim_url, tmp_path) as scene:
        scene.fault(kind, after_chunks=3)
        pieces = []
        with pytest.raises(openai.APIError):  # noqa: PT012 - the words before the error count
            for chunk in scene.openai.chat.completions.create(
                model="support", messages=SAID, stream=True
            ):
                pieces += [choice.delta.content or "" for choice in chunk.choices]
        words: list[str] = []
        with (
            pytest.raises(anthropic.APIError),
            scene.claude.messages.stream(
                model="support", max_tokens=100, messages=SAID
            ) as stream,
        ):
            words.extend(stream.text_stream)

        assert 0 < len("".join(pieces).split()) < 12
        assert 0 < len("".join(words).split()) < 12
        assert scene.count() == (2, 0, 0)
