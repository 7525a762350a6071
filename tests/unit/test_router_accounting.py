import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.failures import FailureClass
from harness.frame.ports import Clock
from harness.frame.runtime.clock import SystemClock
from harness.gate.online.guardrails import (
    ArmSplit,
    ExposureRule,
    FailureTally,
    FeedbackTally,
    Guardrail,
    Guardrails,
)
from harness.gate.online.late_outcomes import find_windows
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.gate.online.reading.block_streams import SPARE_S
from harness.gate.online.reading.scored_exposures import (
    AnswerFault,
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from harness.routing.table import Arm, Canary
from router.observers.feedback import FeedbackIntake
from router.recording import exposure_writer
from router.recording import reporter as reporting
from router.recording.exposure_writer import ExposureFile
from router.recording.metrics import RouterMetrics, StateSample
from router.recording.port import (
    FeedbackBody,
    FeedbackOutcome,
    FeedbackVerdict,
)
from router.recording.reporter import Reporter
from router.recording.spool import FrameReader, encode_frame
from router.recording.sums import CompletedRequest
from router.recording.worker_aggregator import WorkerReports
from tests.support.control.manual_clock import ManualClock
from tests.support.router.live_router import (
    SwitchableStore,
    parents_books,
    snapshot,
)

ROLLOUT = "r-1"
CALLERS = Canary("t", 100, "s", ROLLOUT, ExposureRule(block_size=100))
CALLERS_WITH_ROWS = replace(CALLERS, unit_rule=ExposureRule(ledger_salt="secret"))
messages = st.dictionaries(
    st.text(), st.one_of(st.integers(), st.text(), st.lists(st.integers()))
)


def ended(*, failed: bool = False) -> CompletedRequest:
    return CompletedRequest("support", "canary", "t", 3, False, failed, failed, 40.0, 7, 5, 0.5)  # noqa: FBT003 - a record's fields in order


class Office:
    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.store = SwitchableStore(snapshot("http://127.0.0.1:1/v1"))
        self.recorder, self.books = parents_books(folder, self.store, clock)
        self.live = self.recorder.live_rollouts
        self.accounts: list[WorkerReports] = []
        self.orphaned = 0

    async def worker(
        self,
        *,
        live: frozenset[str] = frozenset(),
        counts: Callable[[], int] = lambda: 0,
        clock: Clock | None = None,
        exposures: Path | None = None,
    ) -> Reporter:
        ours, theirs = socket.socketpair()
        account = self.books.open(len(self.accounts))
        self.accounts.append(account)
        await asyncio.get_running_loop().create_unix_connection(lambda: account, sock=ours)
        made = Reporter(
            theirs,
            worker=f"w{account.slot}",
            clock=clock or SystemClock(),
            live_rollouts=lambda: live,
            on_orphaned=self._orphaned,
            exposures=exposures,
        )
        made.attach(RouterMetrics(lambda: [StateSample("router_stale", counts())]))
        made.start()
        await account.ready.wait()
        return made

    def _orphaned(self) -> None:
        self.orphaned += 1

    def close_books(self) -> None:
        self.recorder.flush(final=True)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def block_sums(office: Office) -> tuple[int, int, int]:
    blocks = office.store.blocks.values()
    return (
        sum(block.units for block in blocks),
        sum(block.failures for block in blocks),
        sum(block.missing for block in blocks),
    )


@pytest.mark.req("F3")
def test_a_sticky_key_on_two_workers_is_one_unit(office: Office) -> None:
    async def play() -> None:
        first = await office.worker()
        second = await office.worker()
        for worker in (first, second):
            for key in ("user:a", "user:b"):
                worker.finish(worker.admit(CALLERS, Arm.CANARY, key), ended())
            await worker.aclose()

    asyncio.run(play())
    office.close_books()

    assert block_sums(office) == (2, 0, 0)
    assert sum(row.requests for row in office.store.traffic) == 4
    (row,) = office.store.traffic
    assert (row.worker, row.input_tokens, row.latency_ms) == (
        "parent",
        28,
        {50: 4},
    )


@pytest.mark.req("F3")
@pytest.mark.parametrize("arm", list(Arm))
def test_what_a_killed_worker_had_begun_is_missing_in_either_arm(
    office: Office, arm: Arm
) -> None:
    async def play() -> None:
        killed = await office.worker()
        other = await office.worker()
        killed.admit(CALLERS, arm, "user:a")
        killed.report()
        other.finish(other.admit(CALLERS, arm, "user:b"), ended())
        await settled(killed)
        assert killed._transport is not None
        killed._transport.abort()
        await office.accounts[0].gone.wait()
        await other.aclose()

    asyncio.run(play())
    office.close_books()

    assert block_sums(office) == (2, 1, 1)


@pytest.mark.req("B9")
def test_any_workers_text_has_the_counts_of_all_and_keeps_those_of_the_dead(
    office: Office,
) -> None:
    async def play() -> list[str]:
        first = await office.worker(counts=lambda: 4)
        second = await office.worker()
        for worker in (first, second):
            assert worker._metrics is not None
            worker._metrics.attempt("up/m", FailureClass.SERVER)
            worker.report(counts=True)
            await settled(worker)
        texts = [(await worker.text()).decode() for worker in (first, second)]
        await first.aclose()
        await office.accounts[0].gone.wait()
        texts.append((await second.text()).decode())
        await second.aclose()
        return texts

    one, two, later = asyncio.run(play())

    attempts = (
        'swapproof_attempts_total{failure_class="server",provider="up",target="up/m"} 2.0'
    )
    assert attempts in one.splitlines()
    assert attempts in two.splitlines()
    assert 'swapproof_router_stale{worker="0"} 4.0' in one.splitlines()
    assert 'swapproof_router_stale{worker="1"} 0.0' in one.splitlines()
    assert attempts in later.splitlines()
    assert 'worker="0"' not in later
    assert "swapproof_router_stale 4.0" not in later
    assert "swapproof_router_workers 1.0" in later.splitlines()


def test_a_worker_whose_parent_is_gone_is_told_once_and_says_so_to_a_scrape(
    office: Office,
) -> None:
    async def play() -> None:
        worker = await office.worker()
        channel = office.accounts[0]._channel
        cast("Any", channel).abort()
        await worker._closed.wait()
        with pytest.raises(TimeoutError):
            await worker.text()
        worker.finish(worker.admit(CALLERS, Arm.CANARY, "user:a"), ended())
        await worker.aclose()

    asyncio.run(play())

    assert office.orphaned == 1


def test_a_parent_that_does_not_read_makes_later_requests_unscored_and_holds_up_none(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MAX_UNSENT_BYTES", -1)
    monkeypatch.setattr(reporting, "MAX_EXPOSURES", 3)

    async def play() -> Reporter:
        worker = await office.worker()
        tickets = [worker.admit(CALLERS, Arm.CANARY, str(number)) for number in range(5)]
        assert tickets == [1, 2, 3, None, None]
        for ticket in tickets:
            worker.finish(ticket, ended())
        worker.report()
        await worker.aclose()
        return worker

    worker = asyncio.run(play())
    office.close_books()

    assert worker.counters["rows_dropped"] == 2
    assert block_sums(office) == (3, 0, 0)
    assert sum(row.requests for row in office.store.traffic) == 5


@pytest.mark.parametrize("begins", [False, True])
def test_a_worker_that_rests_reports_a_request_that_ends_and_evidence_that_begins(
    office: Office,
    monkeypatch: pytest.MonkeyPatch,
    *,
    begins: bool,
) -> None:
    monkeypatch.setattr(reporting, "QUIET_S", 3600.0)

    async def play() -> None:
        worker = await office.worker()
        sent = asyncio.Event()
        async with asyncio.timeout(30):
            while worker._next_record is None:  # noqa: ASYNC110 - it rests by its own clock
                await asyncio.sleep(0.01)
            monkeypatch.setattr(worker, "_send", lambda _: sent.set())
            if begins:
                worker.admit(CALLERS, Arm.CANARY, "user:a")
            else:
                worker.finish(None, ended())
            await sent.wait()
        monkeypatch.undo()
        await worker.aclose()

    asyncio.run(play())


@pytest.mark.req("A5", "F2")
def test_a_report_that_fails_is_told_of_and_sent_with_the_next_one(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions: list[Exception] = []

    def once(_: object) -> bytes:
        monkeypatch.setattr(reporting, "encode_frame", encode_frame)
        raise KeyError("encode_frame")

    async def play() -> None:
        worker = await office.worker()
        worker.on_fault = exceptions.append
        monkeypatch.setattr(reporting, "encode_frame", once)
        worker.finish(worker.admit(CALLERS, Arm.CANARY, "user:a"), ended())
        while not exceptions:  # noqa: ASYNC110 - by its own clock it reports
            await asyncio.sleep(0.01)
        worker.finish(worker.admit(CALLERS, Arm.CANARY, "user:b"), ended())
        await worker.aclose()

    asyncio.run(play())
    office.close_books()

    assert office.orphaned == 0
    assert [type(exception) for exception in exceptions] == [KeyError]
    assert block_sums(office) == (2, 0, 0)
    assert sum(row.requests for row in office.store.traffic) == 2


@pytest.mark.req("A5", "F2")
def test_a_worker_that_reports_no_more_ends(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: object) -> Any:
        raise KeyError("nothing works")

    async def play() -> None:
        worker = await office.worker()
        with monkeypatch.context() as broken:
            broken.setattr(reporting, "encode_frame", never)
            worker.on_fault = never
            worker.finish(worker.admit(CALLERS, Arm.CANARY, "user:a"), ended())
            while not office.orphaned:  # noqa: ASYNC110 - it is told by a callback
                await asyncio.sleep(0.01)
        await worker.aclose()

    asyncio.run(play())

    assert office.orphaned == 1


def test_a_report_that_cannot_be_read_is_counted_and_the_next_one_is(office: Office) -> None:
    async def play() -> None:
        worker = await office.worker()
        worker._send({"units": [[1, 7, 2, 1, 100, 0]]})
        worker.finish(worker.admit(CALLERS, Arm.CANARY, "user:a"), ended())
        await worker.aclose()

    asyncio.run(play())
    office.close_books()

    assert office.books.counters["reports_refused"] == 1
    assert block_sums(office) == (1, 0, 0)


def test_a_rollout_is_live_as_long_as_one_worker_serves_it(office: Office) -> None:
    async def play() -> None:
        behind = await office.worker(live=frozenset({"old"}))
        ahead = await office.worker(live=frozenset({"new"}))
        for worker in (behind, ahead):
            await settled(worker)
        assert office.live() == {"old", "new"}
        # Until a new worker says otherwise: the ledgers must not forget who was counted.
        for worker in (behind, ahead):
            await worker.aclose()
        for account in office.accounts:
            await account.gone.wait()
        assert office.live() == {"old", "new"}

    asyncio.run(play())


async def settled(worker: Reporter) -> None:
    """Once the parent has read all that was sent: it answers in order."""
    worker.report()
    await worker.text()


@given(st.lists(messages, max_size=5), st.integers(1, 7))
def test_messages_come_out_whole_however_the_bytes_are_cut(
    sent: list[dict[str, Any]], size: int
) -> None:
    data = b"".join(map(encode_frame, sent))
    frames = FrameReader()
    heard = list[dict[str, Any]]()
    for start in range(0, len(data), size):
        heard += frames.feed(data[start : start + size])

    assert heard == sent


GUARDED = replace(
    CALLERS,
    unit_rule=replace(CALLERS.unit_rule, block_size=20, guardrails=Guardrails().tolerated()),
)
SEEN = GuardrailSample(SampleValues(1.0, None, None, 5.0, None), int(AnswerFault.TRUNCATED))


@pytest.mark.req("F3")
def test_what_a_workers_requests_were_seen_to_do_is_in_the_parents_block(
    office: Office,
) -> None:
    async def play() -> None:
        worker = await office.worker()
        for number in range(20):
            arm = Arm.CANARY if number % 10 == 0 else Arm.INCUMBENT
            ticket = worker.admit(GUARDED, arm, f"user:{number}", int(RequestTraits.WORDS))
            sample = SEEN if arm is Arm.CANARY else GuardrailSample(SEEN.values)
            worker.finish(ticket, ended(), sample, ANSWERED)
        await worker.aclose()

    asyncio.run(play())
    office.close_books()

    (block,) = office.store.blocks.values()
    assert block.counts[Guardrail.TRUNCATION] == FailureTally(20, 2, 2, 2)
    assert block.counts[Guardrail.REFUSALS] == FailureTally(20, 2, 0, 0)
    assert len(block.ranks[Guardrail.LATENCY]) == 2
    assert Guardrail.TIME_TO_FIRST_TOKEN not in block.ranks


@pytest.mark.req("F3")
def test_feedback_reaches_the_worker_that_served_whichever_one_is_told(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    office = Office(tmp_path, clock)
    outcomes: list[FeedbackOutcome | None] = []

    async def play() -> None:
        served = await office.worker()
        told = await office.worker()
        doors = [FeedbackIntake(recorder, RouterMetrics(list)) for recorder in (served, told)]
        for number in ("1", "2"):
            ticket = served.admit(GUARDED, Arm.CANARY, f"user:{number}")
            request_id = f"req_{served.worker}-{number}"
            request = request_id, "support", "canary", "k", ticket
            doors[0]._latest.append(request)
            served.finish(ticket, ended(), SEEN, ANSWERED)
        for worker, request_id, key in (
            (told, "req_w0-1", "k"),
            (told, "req_w0-1", "another key"),
            (told, "req_w0-9", "k"),
            (told, "req_gone-1", "k"),
        ):
            opinion = FeedbackBody(request_id, FeedbackVerdict.BAD, "")
            outcomes.append(await worker.forward_feedback(opinion, key))
        office.recorder.flush()
        clock.advance(GUARDED.unit_rule.missing_s + 1.0)
        outcomes.append(
            await told.forward_feedback(FeedbackBody("req_w0-2", FeedbackVerdict.BAD, ""), "k")
        )
        for worker in (served, told):
            await worker.aclose()
        office.close_books()

    asyncio.run(play())

    assert outcomes == [
        FeedbackOutcome.COUNTED,
        None,
        None,
        None,
        FeedbackOutcome.LATE,
    ]
    _, block = office.store.blocks.values()
    assert block.counts[Guardrail.FEEDBACK] == FeedbackTally(2, 2, 1, 1, ArmSplit(1, 1))


@pytest.mark.req("F3")
def test_a_callers_later_failure_at_another_worker_fails_the_callers_window(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    office = Office(tmp_path, clock)
    rule = replace(GUARDED.unit_rule, window_s=60.0, ledger_salt="salt")
    canary = replace(GUARDED, unit_rule=rule)
    served = int(RequestTraits.SERVED)

    async def play() -> None:
        workers = [await office.worker(live=frozenset({canary.rollout})) for _ in range(2)]
        failed = ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER, "server")
        for worker, outcome in zip(workers, (ANSWERED, failed), strict=True):
            ticket = worker.admit(canary, Arm.CANARY, "user:a", served)
            worker.finish(ticket, ended(), None, outcome)
            worker.report()
            await worker.text()  # the parent has read all before
        clock.advance(61.0)
        office.recorder.flush()
        clock.advance(rule.window_known_s + SPARE_S)
        office.recorder.flush()
        for worker in workers:
            await worker.aclose()

    asyncio.run(play())

    first, late = office.store.blocks.values()
    assert (first.units, first.failures) == (1, 0)
    tally = find_windows(late)
    assert tally is not None
    assert (tally.canary_failures, tally.requests) == (1, (2, 2))


async def test_requests_of_one_report_count_in_the_minute_and_the_day_in_which_they_ended(
    office: Office,
) -> None:
    clock = ManualClock(datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC))
    worker = await office.worker(clock=clock)
    yesterday = clock.now().date()
    asked = ended()._replace(key="k", model="m-1")
    worker.finish(None, asked)
    assert worker.spent("k", yesterday).day_usd == 0.5
    clock.advance(2.0)
    for _ in range(3):
        worker.finish(None, asked)

    assert worker.spent("k", clock.now().date()).day_usd == 1.5
    await worker.aclose()
    office.close_books()

    minutes = {row.minute: row.requests for row in office.store.traffic}
    assert minutes == {
        datetime(2026, 3, 31, 23, 59, tzinfo=UTC): 1,
        datetime(2026, 4, 1, 0, 0, tzinfo=UTC): 3,
    }


def test_reports_wait_for_no_disk_and_the_rows_come_when_it_answers(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    in_time = list[bool]()
    append = ExposureFile.append

    def append_late(file: ExposureFile, data: bytes) -> int:
        in_time.append(answers.wait(30.0))
        return append(file, data)

    monkeypatch.setattr(ExposureFile, "append", append_late)

    async def play() -> None:
        worker = await office.worker(exposures=tmp_path / "exposures")
        ticket = worker.admit(CALLERS_WITH_ROWS, Arm.CANARY, "user:a")
        worker.report()
        worker.finish(ticket, ended())
        worker.report()
        answers.set()
        await worker.aclose()

    asyncio.run(play())

    (path,) = (tmp_path / "exposures").iterdir()
    assert [line[2] for line in path.read_text().splitlines() if line[2] in "xe"] == ["x", "e"]
    assert all(in_time)


def test_a_worker_counts_the_rows_that_neither_disk_nor_memory_accepts(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ExposureFile, __: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(ExposureFile, "append", refuse)
    monkeypatch.setattr(exposure_writer, "MAX_UNWRITTEN_BYTES", 0)

    async def play() -> int:
        worker = await office.worker(exposures=tmp_path / "exposures")
        ticket = worker.admit(CALLERS_WITH_ROWS, Arm.CANARY, "user:a")
        async with asyncio.timeout(30.0):
            while not worker.counters["exposure_rows_dropped"]:
                worker.report()
                await asyncio.sleep(0.01)
                worker.finish(ticket, ended())
        await worker.aclose()
        return worker.counters["exposure_rows_dropped"]

    assert asyncio.run(play()) > 0
