"""Threads that leave their history to the server stay whole across swaps, if the route keeps
its answers: with the official client, through two routers on one database.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import openai
import pytest
import sqlalchemy as sa

from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.people.access import OptOut, key_hash
from harness.frame.people.limits import KeyLimits
from harness.frame.records.transaction import Transaction
from harness.frame.runtime.clock import SystemClock
from harness.providers.target import Provider, Target
from harness.routing.records.kept_pieces import KeptPieces, kept_piece
from harness.routing.route_settings import RouteSettings
from harness.routing.table import KeyGrant, Route, RoutingTable, Snapshot
from router.server import kept_responses
from router.snapshot.holder import SnapshotHolder
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import (
    EVENTS,
    ReceivedRequest,
    Upstream,
    running_upstream,
)
from tests.support.router.live_router import (
    KEY,
    OPTED_OUT_KEY,
    QUICK,
    SECRET,
    SwitchableStore,
    running_router_on,
    wait_until,
)
from tests.support.site.npm_clients import tool_loop
from tests.support.site.signing_keys import CONTROL
from tests.wire import anthropic, responses
from tests.wire.server import Refused, Reply, WireRequest, play, whole_turn

pytestmark = [pytest.mark.req("A2", "G4"), pytest.mark.both_databases]

OTHER_KEY = "sk-sg-other"
SLOW_KEY = "sk-sg-slow"
STEP: Any = {
    "type": "function",
    "name": "step",
    "parameters": {
        "type": "object",
        "properties": {"number": {"type": "integer"}},
        "required": ["number"],
        "additionalProperties": False,
    },
    "strict": False,
}
GPT = Target("gpt", "gpt-5-mini")
AZURE = Target("azure", "gpt-5-azure")
CLAUDE = Target("claude", anthropic.MODEL)
TARGETS = {target.id: target for target in (GPT, AZURE, CLAUDE)}
STATE = RouteSettings(responses_state_h=24.0)


class CountedRead:
    """A reading transaction of a store, which counts reads of pieces."""

    def __init__(self, tx: SimpleNamespace, db: Transaction, store: "KeptStore") -> None:
        self.observations = tx.observations
        self.shadows = tx.shadows
        self._db = db
        self._store = store

    @property
    def kept_pieces(self) -> KeptPieces:
        self._store.reads += 1
        return KeptPieces(self._db)


class KeptStore(SwitchableStore):
    """Pieces of histories are in a database; everything else is in memory."""

    def __init__(self, snapshot: Snapshot, database: Store) -> None:
        super().__init__(snapshot)
        self._database = database
        self.reads = 0  # of transactions that read pieces

    @contextmanager
    def write(self) -> Iterator[SimpleNamespace]:
        with super().write() as tx, self._database.write() as db:
            yield SimpleNamespace(**vars(tx), kept_pieces=KeptPieces(db))

    @contextmanager
    def read(self) -> Iterator[Any]:
        with super().read() as tx, self._database.read() as db:
            yield CountedRead(tx, db, self)


def routed_to(
    upstream: Upstream,
    target: Target,
    version: int = 1,
    settings: RouteSettings = STATE,
) -> Snapshot:
    host = f"http://127.0.0.1:{upstream.port}"
    providers = [
        Provider("gpt", "openai", f"{host}/v1", "WIRE_KEY"),
        Provider("azure", "openai", f"{host}/v1", "WIRE_KEY"),
        Provider("claude", "anthropic", host, "WIRE_KEY"),
    ]
    route = Route("support", version, target.id, settings=settings)
    return Snapshot(
        RoutingTable(version, {"support": route}, TARGETS),
        {provider.name: provider for provider in providers},
        (
            KeyGrant("k-good", key_hash(KEY, SECRET)),
            KeyGrant("k-other", key_hash(OTHER_KEY, SECRET)),
            KeyGrant("k-slow", key_hash(SLOW_KEY, SECRET), limits=KeyLimits(2)),
            KeyGrant(
                "k-out",
                key_hash(OPTED_OUT_KEY, SECRET),
                opt_outs=frozenset({OptOut.CAPTURE}),
            ),
        ),
        etag=f"{version}",
    )


@dataclass
class World:
    """Two routers on one database."""

    upstream: Upstream
    stores: list[KeptStore]
    holders: list[SnapshotHolder]
    urls: list[str]
    database: Store
    version: int = 1
    calls: int = 0

    def swap(self, target: Target, settings: RouteSettings = STATE) -> None:
        """Makes another target the incumbent, at both routers."""
        self.version += 1
        following = routed_to(self.upstream, target, self.version, settings)
        for store in self.stores:
            store.put(following)
        for holder in self.holders:
            wait_until(lambda holder=holder: holder.current.revision == self.version)

    def next_client(self, key: str = KEY) -> openai.OpenAI:
        """A client of the other router than the last one."""
        self.calls += 1
        url = self.urls[self.calls % 2]
        return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)

    def ask(self, key: str = KEY, *, stream: bool = False, **more: Any) -> Any:
        with self.next_client(key) as client:
            made = client.responses.create(
                **{"model": "support", "tools": [STEP], "stream": stream, **more}
            )
            if not stream:
                return made
            *_, last = made
            assert last.type == "response.completed"
            return last.response

    @property
    def seen(self) -> str:
        """The body of the last request that a provider got."""
        return self.upstream.asked[-1].body.decode()


def reply_to(body: str) -> Reply:
    """The text and calls of a model: two steps, then the end."""
    done = body.count("_DONE")
    if done >= 2:
        return Reply("Both steps ran.")
    return Reply(f"Step {done + 1}.", "hm", calls=(("step", {"number": done + 1}),))


def openai_turn(asked: ReceivedRequest) -> ScriptedTurn:
    """Answers strictly as OpenAI: it refuses ids and reasoning of another account."""
    body = asked.json
    provider = str(body["model"]).replace("-", "")
    try:
        responses.read(body, provider)
    except Refused as refusal:
        return whole_turn(refusal.body, refusal.status)
    answer = responses.whole(reply_to(asked.body.decode()), body, provider)
    if body.get("stream"):
        return ScriptedTurn(headers=EVENTS, steps=tuple(responses.events(answer)))
    return whole_turn(answer)


def claude_turn(asked: ReceivedRequest) -> ScriptedTurn:
    text = asked.body.decode()
    request = WireRequest(asked.path, asked.headers, asked.json)
    said = reply_to(text)
    if asked.json.get("thinking", {}).get("type") != "enabled":
        said = replace(said, reasoning="")
    said = replace(said, stop="tools") if said.calls else said
    return play(anthropic.strict(), request, lambda _: said)


@pytest.fixture
def world(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    # A busy machine's database may need more than five seconds for a history of megabytes.
    monkeypatch.setattr(kept_responses, "DATABASE_S", 60.0)
    with ExitStack() as opened:
        upstream = opened.enter_context(running_upstream())
        upstream.turns |= {
            GPT.model: openai_turn,
            AZURE.model: openai_turn,
            CLAUDE.model: claude_turn,
        }
        database = opened.enter_context(
            closing(Store(database_url, secret=SECRET, clock=SystemClock(), signatures=CONTROL))
        )
        world = World(upstream, [], [], [], database)
        for name in ("one", "two"):
            store = KeptStore(routed_to(upstream, GPT), database)
            (tmp_path / name).mkdir()
            url, holder, _ = opened.enter_context(
                running_router_on(
                    cast("RouterStore", store), tmp_path / name, QUICK, worker=name
                )
            )
            world.stores.append(store)
            world.holders.append(holder)
            world.urls.append(url)
        yield world


QUESTION = {"role": "user", "content": [{"type": "input_text", "text": "QUESTION"}]}


def results_of(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": f"STEP{json.loads(item.arguments)['number']}_DONE",
        }
        for item in answer.output
        if item.type == "function_call"
    ]


def references_of(answer: Any) -> list[dict[str, Any]]:
    """What Vercel's SDK sends of an answer by default: calls whole, everything else by id."""
    return [
        item.model_dump(include={"type", "call_id", "name", "arguments"})
        if item.type == "function_call"
        else {"type": "item_reference", "id": item.id}
        for item in answer.output
    ]


SWAPS = {
    "to another protocol": (GPT, CLAUDE, GPT),
    "to another account": (GPT, AZURE, GPT),
    "from a translation": (CLAUDE, GPT, CLAUDE),
    "without a swap": (GPT, GPT, GPT),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_thread_by_response_ids_stays_whole_through_promotion_and_rollback(
    world: World,
    swap: str,
    stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    before, promoted, back = SWAPS[swap]
    world.swap(before)
    first = world.ask(stream=stream, input="QUESTION")
    assert "QUESTION" in world.seen

    world.swap(promoted)
    second = world.ask(stream=stream, input=results_of(first), previous_response_id=first.id)
    assert world.upstream.asked[-1].model == promoted.model
    assert all(text in world.seen for text in ("QUESTION", "Step 1.", "STEP1_DONE"))

    world.swap(back)
    third = world.ask(stream=stream, input=results_of(second), previous_response_id=second.id)
    assert world.upstream.asked[-1].model == back.model
    whole = ("QUESTION", "Step 1.", "STEP1_DONE", "Step 2.", "STEP2_DONE")
    assert all(text in world.seen for text in whole)
    assert third.output_text == "Both steps ran."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_thread_by_item_references_stays_whole_through_promotion_and_rollback(
    world: World,
    swap: str,
    stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    before, promoted, back = SWAPS[swap]
    history: list[dict[str, Any]] = [QUESTION]
    answer: Any = None
    for target in (before, promoted, back):
        world.swap(target)
        answer = world.ask(stream=stream, input=history)
        assert world.upstream.asked[-1].model == target.model
        history += [*references_of(answer), *results_of(answer)]

    whole = ("QUESTION", "Step 1.", "STEP1_DONE", "Step 2.", "STEP2_DONE")
    assert all(text in world.seen for text in whole)
    assert answer.output_text == "Both steps ran."


def test_stored_reasoning_goes_back_to_the_account_that_has_it(world: World) -> None:
    first = world.ask(input="QUESTION")
    reasoning = first.output[0]
    assert reasoning.type == "reasoning"

    world.ask(input=results_of(first), previous_response_id=first.id)
    assert reasoning.id in world.seen

    world.swap(AZURE)
    world.ask(input=results_of(first), previous_response_id=first.id)
    assert reasoning.id not in world.seen


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("swap", SWAPS)
def test_a_thread_with_thinking_stays_whole(
    world: World,
    swap: str,
    stream: bool,  # noqa: FBT001 - a parameter
) -> None:
    history: list[dict[str, Any]] = [QUESTION]
    answer: Any = None
    for target in SWAPS[swap]:
        world.swap(target)
        answer = world.ask(
            stream=stream,
            input=history,
            reasoning={"effort": "low", "summary": "auto"},
        )
        assert world.upstream.asked[-1].model == target.model
        history += [*references_of(answer), *results_of(answer)]

    whole = ("QUESTION", "Step 1.", "STEP1_DONE", "Step 2.", "STEP2_DONE")
    assert all(text in world.seen for text in whole)
    assert answer.output_text == "Both steps ran."


@pytest.mark.slow
@pytest.mark.parametrize("first", [GPT, CLAUDE], ids=["native", "translated"])
def test_vercels_ai_sdk_by_default_runs_a_tool_loop_through_a_promotion_and_a_rollback(
    world: World,
    first: Target,
) -> None:
    """Each model's answer is the moment of the next swap, as the SDK asks again at once."""
    other = CLAUDE if first is GPT else GPT
    swaps = iter([other, first])
    replies = iter(
        [
            Reply("One.", calls=(("weather", {"city": "Oslo"}),), stop="tools"),
            Reply("Two.", calls=(("weather", {"city": "Rome"}),), stop="tools"),
            Reply("All are sunny."),
        ]
    )

    def answer(asked: ReceivedRequest) -> ScriptedTurn:
        if (following := next(swaps, None)) is not None:
            world.swap(following)
        said = next(replies)
        if asked.model == CLAUDE.model:
            return play(
                anthropic.strict(),
                WireRequest(asked.path, asked.headers, asked.json),
                lambda _: said,
            )
        responses.read(asked.json, "gpt")
        events = responses.events(responses.whole(said, asked.json, "gpt"))
        return ScriptedTurn(headers=EVENTS, steps=tuple(events))

    world.upstream.turns |= {GPT.model: answer, CLAUDE.model: answer}
    world.swap(first)

    told = tool_loop("stored", f"{world.urls[0]}/v1", KEY, "support")

    assert [asked.model for asked in world.upstream.asked] == [
        first.model,
        other.model,
        first.model,
    ]
    assert told["cities"] == ["Oslo", "Rome"]
    assert told["text"] == "All are sunny."
    whole = ("What is the weather?", "One.", "Oslo is sunny", "Two.", "Rome is sunny")
    assert all(text in world.seen for text in whole)


def test_signed_thinking_goes_back_by_reference(world: World) -> None:
    world.swap(CLAUDE)
    thinks: dict[str, Any] = {"reasoning": {"effort": "low", "summary": "auto"}}
    first = world.ask(input=[QUESTION], **thinks)
    assert first.output[0].type == "reasoning"

    history = [QUESTION, *references_of(first), *results_of(first)]
    world.ask(input=history, **thinks)

    assert anthropic.SIGNATURE in world.seen


def test_another_key_or_user_finds_no_answer(world: World) -> None:
    first = world.ask(input="QUESTION", user="ann")
    later: dict[str, Any] = {
        "input": results_of(first),
        "previous_response_id": first.id,
    }

    for key, user in ((OTHER_KEY, "ann"), (KEY, "ben")):
        with pytest.raises(openai.NotFoundError) as error:
            world.ask(key, user=user, **later)
        assert error.value.code == "previous_response_not_found"
        assert error.value.param == "previous_response_id"
        assert f"Previous response with id '{first.id}' not found." in error.value.message
    reference = [QUESTION, {"type": "item_reference", "id": first.output[1].id}]
    with pytest.raises(openai.NotFoundError, match="Item with id 'msg_"):
        world.ask(OTHER_KEY, input=reference)
    assert len(world.upstream.asked) == 1
    assert world.ask(user="ann", **later).output


def test_a_thread_goes_on_under_another_sticky_name(world: World) -> None:
    """The header chooses the arm, and says nothing of who owns a thread."""
    first = world.ask(input="QUESTION", extra_headers={"x-swapproof-sticky": "1"})
    later: dict[str, Any] = {"input": results_of(first), "previous_response_id": first.id}

    assert world.ask(extra_headers={"x-swapproof-sticky": "2"}, **later).output


def test_another_person_whom_a_header_names_finds_no_answer(world: World) -> None:
    name = "x-openwebui-user-id"
    first = world.ask(input="QUESTION", extra_headers={name: "ann"})
    later: dict[str, Any] = {"input": results_of(first), "previous_response_id": first.id}

    for headers in ({name: "ben"}, {}):
        with pytest.raises(openai.NotFoundError):
            world.ask(extra_headers=headers, **later)
    assert world.ask(extra_headers={name: "ann"}, **later).output


@pytest.mark.parametrize("id_", ["resp_\0", "resp_\ud800", "resp_" + "1" * 100_000])
def test_an_id_that_no_database_takes_is_not_found(world: World, id_: str) -> None:
    body = {"model": "support", "input": "And now?", "previous_response_id": id_}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    # The official client cannot write a lone surrogate.
    url = f"{world.urls[0]}/v1/responses"
    found = httpx.post(url, content=json.dumps(body), headers=headers)
    assert found.status_code == 404
    assert found.json()["error"]["code"] == "previous_response_not_found"


def test_a_key_reads_kept_answers_no_more_often_than_it_may_ask(world: World) -> None:
    for _ in range(4):  # two at each router
        with pytest.raises(openai.NotFoundError):
            world.ask(SLOW_KEY, input="Q", previous_response_id="resp_guessed")
    with pytest.raises(openai.RateLimitError, match="kept answers"):
        world.ask(SLOW_KEY, input="Q", previous_response_id="resp_guessed")


@pytest.mark.spine
@pytest.mark.parametrize(
    ("key", "more"),
    [
        (KEY, {"store": False}),
        (OPTED_OUT_KEY, {}),
        (KEY, {"extra_headers": {"x-swapproof-capture": "off"}}),
    ],
)
def test_what_a_client_does_not_want_stored_is_not_stored(
    world: World,
    key: str,
    more: dict[str, Any],
) -> None:
    first = world.ask(key, input="QUESTION", **more)

    with world.database.read() as tx:
        assert KeptPieces(tx).total_bytes() == 0
    with pytest.raises(openai.NotFoundError):
        world.ask(key, input=results_of(first), previous_response_id=first.id)


def test_what_a_later_answer_uses_is_kept_as_long_as_that_answer(world: World) -> None:
    def ends(*ids: str) -> list[datetime]:
        column = kept_piece.c.expires_at
        with world.database.read() as tx:
            rows = tx.read(sa.select(column).where(kept_piece.c.id.in_(ids)))
            return [row.expires_at for row in rows]

    first = world.ask(input=[QUESTION])
    names = [item.id for item in first.output if item.type != "function_call"]
    before = max(ends(*names))

    later = world.ask(input=[QUESTION, *references_of(first), *results_of(first)])
    assert {*ends(*names)} == {*ends(later.id)}
    assert min(ends(*names)) > before


def test_half_an_answer_is_not_kept(world: World) -> None:
    whole = responses.whole(Reply("Half."), {"model": GPT.model, "input": "Q"}, "gpt")
    steps = tuple(responses.events(whole))[:-1]
    world.upstream.turns[GPT.model] = lambda _: ScriptedTurn(headers=EVENTS, steps=steps)

    heard = ""
    with world.next_client() as client, suppress(openai.APIError):
        for event in client.responses.create(model="support", input="Q", stream=True):
            heard = getattr(getattr(event, "response", None), "id", "") or heard

    assert heard
    with world.database.read() as tx:
        assert KeptPieces(tx).total_bytes() == 0


def test_a_request_without_references_reads_no_database(world: World) -> None:
    first = world.ask(input="QUESTION")
    assert sum(store.reads for store in world.stores) == 0

    world.ask(input=results_of(first), previous_response_id=first.id)
    assert sum(store.reads for store in world.stores) > 0


def test_an_unavailable_database_costs_a_history_and_no_answer(world: World) -> None:
    first = world.ask(input="QUESTION")
    for store in world.stores:
        store.away = True
    lost = world.ask(input="QUESTION")
    assert lost.output

    later: dict[str, Any] = {"input": results_of(first)}
    with pytest.raises(openai.InternalServerError) as away:
        world.ask(previous_response_id=first.id, **later)
    assert away.value.status_code == 503
    assert away.value.code == "responses_state_unavailable"

    for store in world.stores:
        store.away = False
    assert world.ask(previous_response_id=first.id, **later).output
    with pytest.raises(openai.NotFoundError):
        world.ask(previous_response_id=lost.id, **later)


def test_without_the_setting_nothing_is_stored_and_the_refusal_names_both_ways_out(
    world: World,
) -> None:
    off = RouteSettings()
    world.swap(GPT, off)
    first = world.ask(input="QUESTION")
    later: dict[str, Any] = {
        "input": results_of(first),
        "previous_response_id": first.id,
    }
    assert world.ask(**later).output

    world.swap(CLAUDE, off)
    for body in (later, {"input": [QUESTION, *references_of(first), *results_of(first)]}):
        with pytest.raises(openai.UnprocessableEntityError) as error:
            world.ask(**body)
        assert "store: false" in error.value.message
        assert "responses_state" in error.value.message
    with world.database.read() as tx:
        assert KeptPieces(tx).total_bytes() == 0


def test_a_background_response_is_refused_before_anything_is_paid(world: World) -> None:
    with pytest.raises(openai.BadRequestError, match="without `background`") as error:
        world.ask(input="QUESTION", background=True)
    assert error.value.param == "background"
    assert world.upstream.asked == []
    assert world.ask(input="QUESTION", background=False).output


def test_a_history_that_is_too_long_is_refused(world: World) -> None:
    said = Reply("Yes.")
    world.upstream.turns[GPT.model] = lambda asked: whole_turn(
        responses.whole(said, asked.json, "gpt")
    )
    before: dict[str, Any] = {}
    for size in (12_000_000, 12_000_001, 10_000_000):
        answer = world.ask(input="Q" * size, **before)
        before = {"previous_response_id": answer.id}

    with pytest.raises(openai.APIStatusError, match="begin a new conversation") as error:
        world.ask(input="And now?", **before)
    assert error.value.status_code == 413
