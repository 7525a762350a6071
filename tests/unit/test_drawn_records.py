import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.dataset_import import read_dataset
from evals.suites.human_labels import accepts_approved, repeats_answer
from evals.suites.items import UNLABELLED, Item
from evals.suites.source_records import read_source
from evals.suites.suite import load_suite
from harness.evals.ports import EvalJob
from harness.evals.settings import SuiteSettings
from harness.frame.configuration.config_conversion import NothingTaken
from harness.frame.errors import InputError
from harness.gate.offline.pairs import pair_samples
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.run import NO_LABEL, RunState, Sample, SampleError
from harness.gate.suite_plan import Claim
from harness.providers.target import Provider, Target
from tests.support.evals.scripted_runner import ScriptedRunner
from tests.support.store.records import PLAIN_RUN, PLAIN_SAMPLE
from tests.unit.test_gate_verdicts import plan as plan_of

pytestmark = pytest.mark.req("F2", "F4")

TEXT = "We are very sorry that your parcel with the blue lamp is late this week."


def suite(folder: Path, *items: Mapping[str, object]) -> SuiteSettings:
    path = folder / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    return SuiteSettings("asked", path=path, scorer="label")


def drawn(number: int, target: str | None) -> dict[str, object]:
    metadata = {} if target else {UNLABELLED: "a drawn record"}
    return {"input": f"Ticket {number}", "target": target, "metadata": metadata}


def test_a_drawn_record_without_a_label_is_an_item_that_the_scorer_never_sees(
    tmp_path: Path,
) -> None:
    settings = suite(tmp_path, drawn(1, "refund"), drawn(2, None), drawn(3, "billing"))

    loaded = load_suite(settings)

    assert loaded.pin.items == 3
    assert loaded.unlabelled == {"asked-0002": "a drawn record"}
    assert ConfiguredSuites({"asked": settings}).describe_sample("asked") == (
        "1 of 3 items have no label: their missing scores open the difference of the models by "
        "up to 33.3 points in either direction."
    )


def test_an_item_without_a_target_needs_a_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"jsonl:2: field 'target' or 'expected': missing"):
        load_suite(suite(tmp_path, drawn(1, "refund"), {"input": "Ticket", "target": None}))


def test_a_suite_without_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no item has a label"):
        load_suite(suite(tmp_path, drawn(1, None), drawn(2, None)))


def test_an_unlabelled_record_that_repeats_a_labelled_one_has_its_label(tmp_path: Path) -> None:
    again = {**drawn(1, None), "id": "again"}

    loaded = load_suite(suite(tmp_path, again, drawn(1, "refund"), drawn(2, "billing")))

    assert loaded.repeats == {"again": "asked-0002"}
    assert not loaded.unlabelled


def test_a_run_asks_no_model_an_unlabelled_item(tmp_path: Path) -> None:
    settings = suite(tmp_path, drawn(1, "refund"), drawn(2, None), drawn(3, "billing"))
    suites = {"asked": settings}
    target = Target("sim", "m")
    run = replace(
        PLAIN_RUN,
        suite="asked",
        suite_digest=ConfiguredSuites(suites).pin("asked").digest,
        target=target.id,
        wanted=3,
        order_seed=7,
    )
    job = EvalJob(
        run, target, Provider("sim", "custom", "http://localhost"), None, max_connections=1
    )
    asked: list[str] = []
    stored: list[Sample] = []

    def answer(_target: Target, item: Item, _epoch: int) -> str:
        asked.append(item.id)
        return str(item.target)

    def store(sample: Sample) -> bool:
        stored.append(sample)
        return True

    state = ScriptedRunner(suites, answer).run(job, store, lambda: False)

    assert (state, sorted(asked)) == (RunState.DONE, ["asked-0001", "asked-0003"])
    (open_,) = [sample for sample in stored if sample.error]
    assert (open_.item, open_.error, open_.cost_usd) == (
        "asked-0002",
        SampleError.UNLABELLED,
        0.0,
    )
    assert open_.error_text == "no label: a drawn record"


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_unlabelled_records_open_the_difference_and_the_verdict_says_by_how_much(
    claim: Claim,
) -> None:
    plan = plan_of(claim=claim, n_max=100)

    def samples(run: str, right: float) -> Sequence[Any]:
        return [
            replace(
                PLAIN_SAMPLE,
                run=run,
                item=f"q{n}",
                position=n,
                epoch=1,
                strict=None if n % 5 == 0 else right,
                lenient=None,
                error=SampleError.UNLABELLED if n % 5 == 0 else None,
                error_text=f"{NO_LABEL}: a drawn record" if n % 5 == 0 else "",
            )
            for n in range(100)
        ]

    report = judge_pairs(plan, pair_samples(plan, samples("a", 1.0), samples("b", 1.0))).report

    assert report.outcome == "infra_error"
    assert (report.figures.bound_low, report.figures.bound_high) == (-0.2, 0.2)
    assert (
        "Up to 20.0 points in either direction come from unlabelled records." in report.reason
    )


@pytest.mark.parametrize(
    ("scorer", "answer", "accepted"),
    [
        ("label", "refund", True),
        ("choice", "B", True),
        ("label", "I am sorry that your parcel is late", False),
        ("exact", "refund", False),
        ("json_fields", {"city": "Rome"}, False),
        ("tool_call", "book(flight)", False),
        ("rubric", "I am sorry that your parcel is late", True),
        ("pairwise", "Any text", True),
    ],
)
def test_an_approved_answer_is_a_target_only_for_labels_choices_and_judges(
    scorer: str, answer: object, *, accepted: bool
) -> None:
    assert accepts_approved(scorer, answer) is accepted


def traces(folder: Path, *records: Mapping[str, object]) -> Any:
    file = folder / "traces.jsonl"
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return read_source(file)


def trace(number: int, score: float | None = None, **more: object) -> dict[str, object]:
    scores = (
        [{"name": "ok", "value": score, "source": "ANNOTATION"}] if score is not None else []
    )
    return {
        "traceId": str(number),
        "input": f"Ticket {number}",
        "output": "refund",
        "scores": scores,
        **more,
    }


def test_reviewed_traces_keep_the_records_that_people_did_not_approve(tmp_path: Path) -> None:
    source = traces(tmp_path, trace(1, 1.0), trace(2, 0.0), trace(3))

    read = read_dataset(source, scorer="label")

    assert [item["target"] for item in read.items] == ["refund", None, None]
    assert (read.unlabelled, read.left_out) == (2, 0)


def test_traces_with_approved_free_text_need_a_judge(tmp_path: Path) -> None:
    text = "We are sorry that your parcel is late."
    source = traces(tmp_path, trace(1, 1.0, output=text))

    with pytest.raises(NothingTaken, match=r"People approved 1 answer; .*`--scorer rubric`"):
        read_dataset(source, scorer="exact")
    (item,) = read_dataset(source, scorer="rubric").items
    assert item["target"] == text


@pytest.mark.parametrize(
    "given_",
    [
        {"expectedOutput": TEXT},
        {"expectedOutput": TEXT.replace("blue", "red")},
        {
            "scores": [
                {
                    "name": "fix",
                    "source": "ANNOTATION",
                    "dataType": "CORRECTION",
                    "stringValue": TEXT.replace("week", "month"),
                }
            ]
        },
    ],
    ids=["expected", "nearly expected", "corrected"],
)
def test_a_label_that_repeats_the_traces_free_text_is_no_exact_target(
    tmp_path: Path, given_: dict[str, Any]
) -> None:
    source = traces(
        tmp_path,
        trace(1, output=TEXT, **given_),
        trace(
            2, output="An unrelated answer.", expectedOutput="Another text of the right answer."
        ),
    )

    exact = read_dataset(source, scorer="exact")
    judged = read_dataset(source, scorer="rubric")

    assert [item["target"] is None for item in exact.items] == [True, False]
    assert [item["target"] is None for item in judged.items] == [False, False]


def test_traces_give_at_most_two_records_of_a_user_under_a_pseudonym(tmp_path: Path) -> None:
    records = [trace(n, 1.0, userId="kim@example.org") for n in range(5)]

    read = read_dataset(traces(tmp_path, *records), scorer="label")

    assert len(read.items) == 2
    assert "kim" not in json.dumps(read.items)
    callers = {item["metadata"]["provenance"]["caller"] for item in read.items}
    assert len(callers) == 1


@pytest.mark.parametrize("lost", [{"output": None}, {"output": ""}, {}])
def test_a_trace_whose_request_failed_stays_in_the_sample(
    tmp_path: Path, lost: dict[str, object]
) -> None:
    failed = {name: value for name, value in trace(2).items() if name != "output"} | lost

    read = read_dataset(traces(tmp_path, trace(1, 1.0), failed), scorer="label")

    assert [item["target"] for item in read.items] == ["refund", None]


def test_a_table_of_answers_keeps_the_rows_that_people_did_not_label(tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    file.write_text("input,output,target\nOne,refund,refund\nTwo,billing,\nThree,,\n")

    read = read_dataset(read_source(file), scorer="label")

    assert [item["target"] for item in read.items] == ["refund", None, None]
    assert read.left_out == 0


def test_a_table_without_answers_needs_a_target_for_each_item(tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text("input,target\nOne,refund\nTwo,\n")

    read = read_dataset(read_source(file), scorer="label")

    assert (len(read.items), read.left_out) == (1, 1)


@given(order=st.permutations(range(8)), approved=st.sets(st.integers(0, 7), min_size=1))
def test_neither_order_nor_labels_decide_which_records_of_a_user_are_drawn(
    tmp_path_factory: pytest.TempPathFactory, order: Sequence[int], approved: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("drawn")

    def drawn_of(numbers: Sequence[int], labelled: set[int]) -> set[str]:
        given_ = [trace(n, 1.0 if n in labelled else None, userId="kim") for n in numbers]
        source = traces(folder, *given_, trace(9, 1.0))
        return {item["input"] for item in read_dataset(source, scorer="label").items}

    assert drawn_of(order, approved) == drawn_of(range(8), set())


@pytest.mark.parametrize(
    ("label", "answer", "repeats"),
    [
        (TEXT, {"content": TEXT}, True),
        (TEXT.upper(), {"content": TEXT}, True),
        (TEXT.removesuffix("."), {"content": f"{TEXT}\n"}, True),
        (TEXT.replace("late", "delayed"), {"content": f"{TEXT} {TEXT}"}, True),
        ({"reply": TEXT}, {"content": json.dumps({"reply": TEXT, "to": "kim"})}, True),
        (
            [{"name": "reply", "arguments": {"text": TEXT}}],
            {
                "tool_calls": [
                    {"function": {"name": "reply", "arguments": f'{{"text": "{TEXT}"}}'}}
                ]
            },
            True,
        ),
        ("refund", {"content": "refund"}, False),
        ({"city": "Rome"}, {"content": '{"city": "Rome"}'}, False),
        ("Another carrier has your parcel since Monday, in depot 4.", {"content": TEXT}, False),
        ("返品希望", {"content": "返品希望"}, False),
        (
            "ご不便をおかけして誠に申し訳ございません",
            "ご不便をおかけして誠に申し訳ございません。",
            True,
        ),
    ],
)
def test_a_free_text_of_the_production_answer_is_found_in_any_label(
    label: object, answer: object, *, repeats: bool
) -> None:
    assert repeats_answer(label, answer) is repeats
