"""Exposures and events on their way from a process to its file, and back."""

import errno
import fcntl
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from harness.gate.online import exposures as facts
from harness.gate.online.exposures import (
    BUCKETS,
    KEPT,
    LOST,
    MOST_CONTROLS,
    THINNED,
    EventKind,
    Exposure,
    ExposureEvent,
    canary_share,
    hash_caller,
    kept_bps,
)
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    JudgeOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.gate.online.prompt_cache import CacheUse
from harness.gate.online.reading.scored_exposures import (
    GuardrailSample,
    RequestTraits,
    SampleValues,
)
from harness.gate.online.uncounted import UncountedReason
from harness.routing.table import Canary
from router.recording import exposure_writer
from router.recording.exposure_lines import MAX_SERVED_CHARS, LineReader
from router.recording.exposure_writer import ExposureWriter
from tests.support.control.manual_clock import ManualClock

SALT = "a secret of the rollout"
HALF = Canary(
    "t_new",
    5_000,
    "salt",
    "r-1",
    ExposureRule(ledger_salt=SALT, window_s=600.0, window_requests=3, began_s=3_600.0),
)
SERVED = RequestTraits.SERVED.value
SAMPLE = GuardrailSample(
    SampleValues(
        1.5, 0.25, 0.01, 12.0, 0.002, CacheUse(100, 40, 0.001, 0.5), 0.1, bounded=True
    ),
    2,
    281474976710655,
    44,
    7,
)


class Desk:
    """A process that writes exposures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "exposures"
        self.clock = ManualClock()
        self.writer = ExposureWriter(self.folder, "w", self.clock)
        self.tickets = 0

    def admit(
        self,
        key: str,
        canary: Canary = HALF,
        *,
        candidate: bool = True,
        client: str = "",
    ) -> int:
        self.tickets += 1
        self.writer.admit(
            self.tickets,
            canary,
            key,
            candidate=candidate,
            traits=SERVED,
            client=client,
        )
        return self.tickets

    def rows(self, ahead: timedelta = timedelta(0)) -> list[Exposure | ExposureEvent]:
        self.writer.write()
        found: list[Exposure | ExposureEvent] = []
        for path in sorted(self.folder.glob("*.*")):
            reader = LineReader("w", {})
            for line in path.read_bytes().splitlines():
                row = reader.read(line, ahead)
                if isinstance(row, Exposure | ExposureEvent):
                    found.append(row)
        return found

    def counts(self) -> dict[tuple[bool, str], int]:
        return {(row.canary, row.reason): row.requests for row in self.writer.take_counts()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_request_comes_back_from_the_file_with_all_that_the_router_knew(desk: Desk) -> None:
    began_at = desk.clock.now()
    ticket = desk.admit("user:ada", client="k-1")
    desk.clock.advance(2.0)
    outcome = ExposureOutcome(
        OutcomeKind.FAILED,
        OutcomeReason.PROVIDER,
        "server",
        0.5,
        sent=True,
        first_s=0.25,
        gap_s=0.75,
    )
    desk.writer.finish(ticket, outcome, "gpt-5-2026", SAMPLE)
    desk.writer.note_feedback(ticket, bad=True)
    desk.writer.judged("r-1", ticket, JudgeOutcome.NO_VERDICT, 0.01)

    exposure, ended, opinion, judged = desk.rows()

    caller, sample = hash_caller(SALT, "user:ada")
    at = began_at + timedelta(seconds=2)
    assert exposure == Exposure(
        "r-1",
        0,
        "w",
        ticket,
        HALF.unit_rule.find_period(began_at),
        caller,
        sample,
        canary=True,
        weight_bps=5_000,
        admitted_at=began_at,
        traits=SERVED,
        client="k-1",
    )
    assert ended == ExposureEvent(
        "r-1",
        0,
        "w",
        ticket,
        EventKind.ENDED,
        at,
        began_at,
        outcome=OutcomeKind.FAILED,
        reason=OutcomeReason.PROVIDER,
        failure="server",
        waited_s=0.5,
        sent=True,
        first_output_s=0.25,
        longest_gap_s=0.75,
        served="gpt-5-2026",
        latency_s=1.5,
        time_to_first_token_s=0.25,
        inter_token_latency_s=0.01,
        output_tokens=12.0,
        cost_usd=0.002,
        input_tokens=100,
        cached_tokens=40,
        cache_worth_usd=0.001,
        cache_saved_s=0.5,
        opening_s=0.1,
        bounded=True,
        faults=2,
        text_hash=SAMPLE.hide_texts(SALT).text,
        text_length=44,
        question_hash=SAMPLE.hide_texts(SALT).question,
    )
    assert opinion == ExposureEvent("r-1", 0, "w", ticket, EventKind.FEEDBACK, at, at, bad=True)
    assert judged == ExposureEvent(
        "r-1",
        0,
        "w",
        ticket,
        EventKind.JUDGED,
        at,
        at,
        verdict=JudgeOutcome.NO_VERDICT,
        judge_usd=0.01,
    )


def test_an_answer_without_measurements_leaves_its_values_unknown(desk: Desk) -> None:
    desk.writer.finish(desk.admit("ada"), ANSWERED)

    _, ended = desk.rows()

    assert isinstance(ended, ExposureEvent)
    assert ended.outcome is OutcomeKind.ANSWERED
    assert ended.cost_usd is None
    assert ended.faults is None
    assert ended.first_output_s is None


def test_a_failed_request_has_no_cost_and_a_failure_to_price_is_no_cost_of_zero(
    desk: Desk,
) -> None:
    desk.writer.finish(desk.admit("ada"), ANSWERED, "m", GuardrailSample(SampleValues()))

    _, ended = desk.rows()

    assert isinstance(ended, ExposureEvent)
    assert ended.cost_usd is None
    assert ended.output_tokens is None


def test_a_callers_later_requests_in_the_window_are_turns_of_the_exposure(desk: Desk) -> None:
    first = desk.admit("ada")
    desk.writer.finish(first, ANSWERED)
    for _ in range(4):
        desk.clock.advance(1.0)
        desk.writer.finish(desk.admit("ada"), ANSWERED)

    rows = desk.rows()

    events = [row for row in rows if isinstance(row, ExposureEvent)]
    assert [(row.kind, row.ticket) for row in events] == [
        (EventKind.ENDED, first),
        (EventKind.TURN, first),
        (EventKind.TURN, first),  # the third request is the window's last
    ]


def test_a_caller_counts_again_in_the_next_period(desk: Desk) -> None:
    desk.admit("ada")
    desk.clock.advance(HALF.unit_rule.period_s)
    desk.admit("ada")

    periods = [row.period for row in desk.rows() if isinstance(row, Exposure)]

    assert periods == [periods[0], periods[0] + 1]


def test_times_in_the_file_move_to_the_clock_of_the_database(desk: Desk) -> None:
    desk.admit("ada")

    (row,) = desk.rows(timedelta(seconds=30))

    assert isinstance(row, Exposure)
    assert row.admitted_at == desk.clock.now() + timedelta(seconds=30)


def test_the_larger_arm_keeps_nineteen_callers_for_one_of_the_smaller_arm(desk: Desk) -> None:
    small = Canary("t_new", 100, "salt", "r-1", HALF.unit_rule)
    for number in range(4_000):
        desk.admit(f"user:{number}", small, candidate=False)
    for number in range(40):
        desk.admit(f"other:{number}", small, candidate=True)

    counts = desk.counts()
    rows = [row for row in desk.rows() if isinstance(row, Exposure)]

    controls = [row for row in rows if not row.canary]
    assert counts[True, KEPT] == 40
    assert counts[False, KEPT] + counts[False, THINNED] == 4_000
    assert counts[False, KEPT] == len(controls)
    assert len(controls) == pytest.approx(4_000 * MOST_CONTROLS / 99, rel=0.15)
    assert all(row.sample < kept_bps(100, canary=False) for row in controls)


@pytest.mark.parametrize("weight_bps", [1, 100, 500, 2_000, 5_000, 9_000, 9_999, 10_000])
def test_the_share_among_the_rows_is_at_least_one_in_twenty_for_each_arm(
    weight_bps: int,
) -> None:
    share = canary_share(weight_bps)

    assert kept_bps(weight_bps, canary=weight_bps <= BUCKETS // 2) == BUCKETS
    if weight_bps < BUCKETS:
        assert 0.0499 <= share <= 0.9501
    else:
        assert share == 1.0


def test_a_request_that_becomes_no_exposure_counts_by_its_reason(desk: Desk) -> None:
    desk.writer.note_uncounted(HALF, UncountedReason.SWITCH, candidate=False)

    assert desk.counts() == {(False, UncountedReason.SWITCH): 1}
    assert desk.counts() == {}


def test_a_rollout_without_a_salt_writes_nothing_about_its_callers(desk: Desk) -> None:
    desk.admit("ada", Canary("t_new", 5_000, "salt", "r-1", ExposureRule()))

    assert desk.rows() == []


def test_the_cost_of_a_judge_is_kept_if_its_answer_belongs_to_no_exposure(desk: Desk) -> None:
    desk.admit("ada")
    desk.writer.judged("r-1", 99, JudgeOutcome.GOOD, 0.5)

    _, judged = desk.rows()

    assert isinstance(judged, ExposureEvent)
    assert (judged.ticket, judged.judge_usd) == (0, 0.5)


def test_each_file_names_its_rollouts_so_that_it_can_be_read_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_writer, "MAX_FILE_BYTES", 300)
    for number in range(10):
        desk.admit(f"user:{number}")
        desk.writer.write()

    rows = desk.rows()

    assert len(list(desk.folder.glob("w.*"))) > 2
    assert [row.ticket for row in rows if isinstance(row, Exposure)] == list(range(1, 11))


def test_a_file_is_locked_until_its_process_has_written_all_of_it(desk: Desk) -> None:
    desk.admit("ada")
    desk.writer.write()
    (path,) = desk.folder.glob("w.*")
    with path.open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        desk.admit("eve")
        desk.writer.close()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert path.read_bytes().count(b'["x"') == 2


def test_a_full_disk_admits_no_caller_and_counts_those_who_are_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure_writer, "MAX_UNWRITTEN_BYTES", 1_000)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    first = desk.admit("user:first")
    desk.writer.write()
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", refuse)
        for number in range(30):
            desk.admit(f"user:{number}")
            desk.writer.write()
        desk.writer.finish(first, ANSWERED)
        desk.writer.write()
    desk.clock.advance(2.0)
    desk.writer.write()  # the disk has room again
    desk.admit("user:last")

    counts = desk.counts()
    rows = desk.rows()

    exposures = [row for row in rows if isinstance(row, Exposure)]
    assert counts[True, LOST] > 0
    assert counts[True, KEPT] + counts[True, LOST] == 32
    assert len(exposures) == counts[True, KEPT]
    assert exposures[-1].ticket == desk.tickets
    assert [row.ticket for row in rows if isinstance(row, ExposureEvent)] == [first]


def test_a_half_written_line_is_continued_and_not_repeated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    desk.admit("ada")
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        desk.writer.write()
    desk.admit("eve")

    assert [row.ticket for row in desk.rows() if isinstance(row, Exposure)] == [1, 2]


def test_an_ended_rollout_is_forgotten_and_the_file_ends(desk: Desk) -> None:
    ticket = desk.admit("ada")
    desk.writer.write()
    desk.writer.forget_ended(frozenset())
    desk.writer.finish(ticket, ANSWERED)  # its request ends later
    desk.writer.write()
    desk.writer.write()
    (path,) = desk.folder.glob("w.*")

    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert [type(row) for row in desk.rows()] == [Exposure, ExposureEvent]


def test_two_keys_of_one_salt_have_different_hashes_and_one_key_has_one_everywhere() -> None:
    hashes = {hash_caller(SALT, f"user:{number}") for number in range(10_000)}

    assert len({one.caller for one in hashes}) == 10_000
    assert all(0 <= one.caller < 2**63 and 0 <= one.sample < facts.BUCKETS for one in hashes)
    assert hash_caller(SALT, "user:1") == hash_caller(SALT, "user:1")
    assert hash_caller("another", "user:1") != hash_caller(SALT, "user:1")


def test_hashes_of_texts_are_keyed_with_the_secret_of_the_rollout(desk: Desk) -> None:
    other = replace(HALF, rollout="r-2", unit_rule=replace(HALF.unit_rule, ledger_salt="other"))
    for key, canary in (("ada", HALF), ("bert", HALF), ("ada", other)):
        desk.writer.finish(desk.admit(key, canary), ANSWERED, "", SAMPLE)
    desk.writer.finish(desk.admit("carl"), ANSWERED, "", GuardrailSample(SAMPLE.values))

    ended = [row for row in desk.rows() if isinstance(row, ExposureEvent)]

    own, again, elsewhere, without = [(row.text_hash, row.question_hash) for row in ended]
    assert own == again
    assert len({SAMPLE.text, SAMPLE.question, *own, *elsewhere}) == 6
    assert without == (0, 0)


def test_a_providers_name_for_its_model_is_cut(desk: Desk) -> None:
    desk.writer.finish(desk.admit("ada"), ANSWERED, "m" * 300_000)

    (ended,) = (row for row in desk.rows() if isinstance(row, ExposureEvent))

    assert ended.served == "m" * MAX_SERVED_CHARS
