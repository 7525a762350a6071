import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.store.router_store import RouterStore
from harness.app.store.store import Store
from harness.frame.errors import StoreUnavailable
from harness.frame.people.access import OptOut
from harness.frame.records.transaction import Transaction
from harness.frame.redaction import Redactor
from harness.operations.captures import build_export_line
from harness.operations.records import Captures
from harness.routing.capture import CapturedRequest, capture_id, is_sampled
from harness.routing.route_settings import RouteSettings
from harness.routing.shadow_pair import CANDIDATE, CandidateAnswer, CandidateOutcome
from router.recording.capture_writer import MAX_WAITING, CaptureWriter, redact_draft
from router.recording.port import CaptureDraft
from tests.support.control.manual_clock import ManualClock
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.providers.scripted_upstream import completion, error
from tests.support.router.asgi_router import AUTH, CHAT, Door
from tests.support.router.live_router import snapshot
from tests.support.site.signing_keys import CONTROL
from tests.support.store.sqlite_store import migrated_file

pytestmark = pytest.mark.req("F9", "G4")

SECRET = b"the installation's"
SENT = "I am kim@example.org"


class AwayStore(Store):
    @contextmanager
    def write(self) -> Iterator[Transaction]:
        raise StoreUnavailable(f"cannot write {SENT}")
        yield


def draft(
    number: int = 1,
    *,
    said: str = SENT,
    answer: str | None = None,
    client_body: str = "",
) -> CaptureDraft:
    asked = {"messages": [{"role": "user", "content": said}]}
    whole = {
        "choices": [
            {
                "message": {"content": f"Hello, {said}"},
                "finish_reason": "stop",
            }
        ]
    }
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    head = CapturedRequest(
        id="",
        at=at,
        expires_at=at + timedelta(days=30),
        route="triage",
        request=f"req_{number}",
        endpoint="chat",
        stream=False,
        arm="incumbent",
        target="sim/old-1",
        revision=1,
        data_class="",
        user_hash="a" * 32,
        share_bps=100,
        rules="",
        redactions={},
        content={},
    )
    body = client_body or json.dumps(asked)
    return CaptureDraft(head, 2, body, answer or json.dumps(whole))


def open_store(folder: Path, kind: type[Store] = Store) -> Store:
    (file := folder / "desk.db").write_bytes(migrated_file())
    return kind(
        f"sqlite:///{file}",
        secret=SECRET,
        clock=ManualClock(),
        signatures=CONTROL,
    )


def desk(
    folder: Path,
    *drafts: CaptureDraft,
    kind: type[Store] = Store,
) -> tuple[list[CapturedRequest], Counter[str]]:
    store = open_store(folder, kind)
    counters: Counter[str] = Counter()
    made = CaptureWriter(RouterStore(store), Redactor(), SECRET, counters)
    made.start()
    for capture in drafts:
        made.put(capture)
    made.stop()
    with closing(store), store.read() as tx:
        return list(Captures(tx).list()), counters


def test_a_draft_is_stored_redacted_with_all_that_tells_where_it_is_from(
    tmp_path: Path,
) -> None:
    (request,), counted = desk(tmp_path, draft())

    assert request.content["messages"][0]["content"] == "I am [EMAIL_1]"
    assert request.content["answer"]["content"] == "Hello, I am [EMAIL_1]"
    assert request.redactions == {"email": 2}
    assert request.rules == Redactor().digest
    assert (request.expires_at - request.at).days == 30
    assert counted == {"captures_stored": 1}


def test_the_same_question_is_counted_and_a_full_day_takes_no_more(tmp_path: Path) -> None:
    questions = "One?", " one? ", "Two?", "Three?"
    found, counted = desk(
        tmp_path,
        *(draft(n, said=question) for n, question in enumerate(questions)),
    )

    assert [request.seen for request in sorted(found, key=lambda capture: capture.request)] == [
        2,
        1,
    ]
    assert counted == {
        "captures_stored": 2,
        "captures_repeated": 1,
        "captures_over_day": 1,
    }


def test_what_cannot_be_read_or_stored_is_dropped_and_no_log_has_a_word_of_it(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.DEBUG):
        kept, unreadable = desk(
            tmp_path,
            draft(client_body=f'{{"messages": "{SENT}"'),
            draft(2),
        )
        none, away = desk(
            tmp_path,
            draft(),
            kind=AwayStore,
        )

    assert (len(kept), len(none)) == (1, 0)
    assert unreadable == {"captures_unreadable": 1, "captures_stored": 1}
    assert away == {"captures_dropped": 1}
    assert "kim@" not in caplog.text
    assert "kim@" not in repr(draft())
    assert "kim@" not in repr(kept[0])


@pytest.mark.parametrize(
    "answer", [f'{{"choices": "{SENT}"', "[]", '{"choices": []}', "<html>"]
)
def test_a_broken_answer_leaves_its_request_in_the_sample(tmp_path: Path, answer: str) -> None:
    (kept,), counted = desk(tmp_path, draft(answer=answer))

    assert kept.content["messages"] == [{"role": "user", "content": "I am [EMAIL_1]"}]
    assert "answer" not in kept.content
    assert kept.outcome == "answer_unreadable"
    assert counted == {"captures_stored": 1}


def pair_drafts(answer: str | None = None, candidate: str = "") -> list[CaptureDraft]:
    """The two drafts of a shadow pair: its entry, and its answers."""
    whole = draft(answer=answer)
    pending = CandidateAnswer("sim/new", due=ManualClock().now() + timedelta(minutes=1))
    head = replace(whole.head, id="pair_1", shadow="sh_1", candidate=pending)
    done = replace(head, candidate=replace(pending, outcome=CandidateOutcome.ANSWERED))
    entry = whole._replace(head=head, client_body="", answer="")
    return [entry, whole._replace(head=done, candidate_answer=candidate or whole.answer)]


def only_pair(folder: Path) -> CapturedRequest:
    with (
        closing(
            Store(
                f"sqlite:///{folder / 'desk.db'}",
                secret=SECRET,
                clock=ManualClock(),
                signatures=CONTROL,
            )
        ) as store,
        store.read() as tx,
    ):
        return Captures(tx).get("pair_1")


def test_both_answers_of_a_pair_are_redacted_with_the_same_placeholders(tmp_path: Path) -> None:
    other = json.dumps({"choices": [{"message": {"content": f"lee@example.org, not {SENT}"}}]})
    _, counted = desk(tmp_path, *pair_drafts(candidate=other))

    content = only_pair(tmp_path).content
    assert content["messages"][0]["content"] == "I am [EMAIL_1]"
    assert content["answer"]["content"] == "Hello, I am [EMAIL_1]"
    assert content[CANDIDATE]["content"] == "[EMAIL_2], not I am [EMAIL_1]"
    assert counted == {"captures_stored": 1}


@pytest.mark.parametrize("answer", [f'{{"choices": "{SENT}"', "[]", "<html>"])
def test_an_unreadable_answer_of_the_candidate_is_no_answer(
    tmp_path: Path, answer: str
) -> None:
    desk(tmp_path, *pair_drafts(candidate=answer))

    pair = only_pair(tmp_path)
    assert pair.candidate
    assert pair.candidate.outcome is CandidateOutcome.UNREADABLE
    assert CANDIDATE not in pair.content
    assert pair.content["answer"]["content"] == "Hello, I am [EMAIL_1]"


def test_an_unreadable_answer_of_the_incumbent_keeps_the_candidates(tmp_path: Path) -> None:
    desk(tmp_path, *pair_drafts("<html>", draft().answer))

    pair = only_pair(tmp_path)
    assert pair.candidate
    assert pair.candidate.outcome is CandidateOutcome.ANSWERED
    assert pair.outcome == "answer_unreadable"
    assert pair.content.keys() == {CANDIDATE, "messages", "settings"}


def test_a_pair_that_was_not_entered_is_dropped_with_its_answers(tmp_path: Path) -> None:
    _, answers = pair_drafts()
    found, counted = desk(tmp_path, answers)

    assert found == []
    assert counted == {"captures_dropped": 1}


def test_a_pair_whose_answers_are_lost_stays_without_content(tmp_path: Path) -> None:
    entry, _ = pair_drafts()
    desk(tmp_path, entry)

    pair = only_pair(tmp_path)
    assert pair.candidate
    assert pair.candidate.outcome is CandidateOutcome.PENDING
    assert pair.content == {}
    assert pair.rules == Redactor().digest


def test_a_full_day_of_samples_leaves_room_for_pairs(tmp_path: Path) -> None:
    samples = [draft(n, said=f"{n}?") for n in range(3)]
    found, counted = desk(tmp_path, *samples, *pair_drafts())

    assert len(found) == 2
    assert only_pair(tmp_path).content
    assert counted == {"captures_stored": 3, "captures_over_day": 1}


def test_a_desk_without_room_drops_and_does_not_wait(tmp_path: Path) -> None:
    counters: Counter[str] = Counter()
    made = CaptureWriter(RouterStore(open_store(tmp_path)), Redactor(), SECRET, counters)

    for number in range(MAX_WAITING + 3):
        made.put(draft(number))

    assert counters == {"captures_dropped": 3}


@given(
    requests=st.lists(st.uuids().map(str), unique=True),
    low=st.integers(0, 10_000),
)
def test_a_greater_share_draws_all_that_a_smaller_one_did(
    requests: list[str], low: int
) -> None:
    for request in requests:
        assert is_sampled(request, low) <= is_sampled(request, 10_000)
        assert not is_sampled(request, 0)


def test_about_the_share_is_drawn() -> None:
    drawn = sum(is_sampled(f"req_w-{number:x}", 500) for number in range(20_000))

    assert 850 < drawn < 1150  # 1 000; five standard deviations are 154


def test_the_id_follows_route_and_question_alone() -> None:
    one = {
        "messages": [{"role": "user", "content": "How  much?"}],
        "answer": "1",
    }
    same = {
        "messages": [{"role": "user", "content": "how much?\n"}],
        "answer": "2",
    }
    other = {
        "messages": [{"role": "user", "content": "how many?"}],
        "answer": "1",
    }

    assert capture_id("r", one, SECRET) == capture_id("r", same, SECRET)
    assert (
        len(
            {
                capture_id(*parts)
                for parts in (
                    ("r", one, SECRET),
                    ("s", one, SECRET),
                    ("r", other, SECRET),
                    ("r", one, b"another"),
                )
            }
        )
        == 4
    )


class Sampled:
    """A door of a route that captures everything, or nothing."""

    def __init__(
        self,
        folder: Path,
        share_bps: int = 10_000,
        opt_outs: frozenset[OptOut] = frozenset(),
        turn: ScriptedTurn | None = None,
    ) -> None:
        settings = RouteSettings(capture_bps=share_bps, data_class="personal")
        first = snapshot("http://up", settings=settings)
        keys = tuple(replace(key, opt_outs=opt_outs) for key in first.keys)
        first = replace(first, keys=keys)
        cleared = {"personal": frozenset({"up"})}
        self.door = Door(
            folder,
            lambda _: turn or completion(),
            first=first,
            classes=cleared,
        )
        self.drafts: list[CaptureDraft] = []
        self.door.recorder.capture = self.drafts.append  # type: ignore[method-assign, assignment]  # the desk has its own tests

    def ask(
        self,
        said: str = "hi",
        headers: Sequence[tuple[bytes, bytes]] = (),
        **more: object,
    ) -> int:
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": said}],
            **more,
        }
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
    head = draft.head
    assert (head.route, head.arm, head.endpoint) == (
        "support",
        "incumbent",
        "chat",
    )
    assert (head.data_class, head.share_bps, draft.per_day) == (
        "personal",
        10_000,
        200,
    )
    assert (head.expires_at - head.at).days == RouteSettings().capture_keep_days
    assert "kim" not in head.user_hash
    assert head.outcome == "ok"


@pytest.mark.req("F4", "F9")
@pytest.mark.parametrize(("status", "outcome"), [(500, "server"), (400, "bad_request")])
def test_a_failed_or_refused_request_is_drawn_like_an_answered_one(
    status: int, outcome: str, tmp_path: Path
) -> None:
    sampled = Sampled(tmp_path, turn=error(status))

    assert sampled.ask(user="kim") >= 400

    (draft,) = sampled.drafts
    assert (draft.head.outcome, draft.answer) == (outcome, "")
    made = redact_draft(draft, Redactor(), SECRET)
    assert made.content["messages"][0]["content"] == "hi"
    assert "answer" not in made.content


@pytest.mark.req("F4", "F9")
def test_a_capture_has_pseudonyms_of_its_caller_and_conversation(tmp_path: Path) -> None:
    sampled = Sampled(tmp_path)
    for said, user in (("hi", "kim"), ("hello", "kim"), ("hi", "lee")):
        sampled.ask(said=said, user=user)
    sampled.ask(said="hi")

    kim, again, lee, unnamed = (draft.head for draft in sampled.drafts)
    assert kim.caller == again.caller != lee.caller
    assert len({head.conversation for head in (kim, again, lee)}) == 3
    assert unnamed.caller == ""
    assert unnamed.conversation


@pytest.mark.spine
@pytest.mark.req("G3")
@pytest.mark.parametrize(
    ("taken", "ask", "counted"),
    [
        (
            {"share_bps": 0},
            {},
            {},
        ),
        (
            {},
            {"headers": [(b"x-swapproof-capture", b"off")]},
            {"captures_refused": 1},
        ),
        (
            {},
            {"store": False},
            {"captures_refused": 1},
        ),
        (
            {"opt_outs": frozenset({OptOut.CAPTURE})},
            {},
            {"captures_refused": 1},
        ),
    ],
    ids=["no share", "client's header", "client's body", "key opted out"],
)
def test_what_is_not_drawn_or_refused_is_not_taken(
    taken: dict[str, Any],
    ask: dict[str, Any],
    counted: dict[str, int],
    tmp_path: Path,
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
    assert (draft.client_body, draft.answer, draft.head.too_large) == (
        "",
        "",
        True,
    )
    assert draft.head.body_bytes > limit
    assert sampled.counted == {"captures_too_large": 1}


def test_a_capture_says_why_no_copy_of_its_request_may_be_asked(tmp_path: Path) -> None:
    asked = {
        "messages": [{"role": "user", "content": "Send the mail."}],
        "tools": [{"type": "mcp", "server_url": "https://mail.example"}],
    }
    plain = draft(1)
    writes = draft(2, client_body=json.dumps(asked))

    captured, _ = desk(tmp_path, plain, writes)

    states = {one.request: one.content.get("provider_state") for one in captured}
    assert states == {"req_1": None, "req_2": "a tool that the provider runs"}
    (line,) = [build_export_line(one) for one in captured if one.request == "req_2"]
    assert "provider_state" not in line


def test_a_capture_keeps_the_settings_that_a_copy_must_have(tmp_path: Path) -> None:
    asked = {
        "messages": [{"role": "user", "content": "Be brief."}],
        "max_completion_tokens": 64,
        "stop": "ann@example.com",
        "user": "u",
    }

    (captured,), _ = desk(tmp_path, draft(1, client_body=json.dumps(asked)))

    settings = captured.content["settings"]
    assert (settings["max_tokens"], settings["temperature"]) == (64, None)
    assert "ann@" not in settings["stop"]
    assert "user" not in settings
