"""The decision uses what a results file states: direction, completeness, settings."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.inspect_log import parse_inspect
from harness.evals.run_pairs import pair_runs, turned_round
from harness.evals.run_statement import (
    Acceptance,
    CallSettings,
    Direction,
    MetricStatement,
    RunCompletion,
    RunStatement,
    direction_of_successes,
    is_usually_lower,
    resolve_direction,
)
from harness.evals.scored_run import PairRow, ScoredRun, ScoredSample
from harness.evals.tool_statements import named_settings, prompt_digests, reads_like_error
from harness.frame.errors import InputError
from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("G1", "F2")
FILES: Final = Path(__file__).parent.parent / "support/evals/exports"


@pytest.mark.parametrize(
    "metric",
    [
        "Hallucination",
        "hallucination_rate",
        "score_toxicity",
        "Toxicity [GEval]",
        "Bias",
        "loss",
        "word_perplexity",
        "error rate",
        "errorRate",
        "latency_ms",
        "cost",
        "WER",
        "judge.bias",
        "noise_sensitivity(mode=relevant)",
        "unsafe_content",
        "edit_distance",
        "toxic",
        "safety_violations",
        "non_compliance",
        "not_grounded",
        "accuracy_loss",
        "refused",
        "ungrounded",
        "pii_exposed",
    ],
)
def test_a_name_of_low_scores_makes_swapproof_ask_for_the_direction(metric: str) -> None:
    with pytest.raises(InputError, match="--lower-is-better or --higher-is-better"):
        resolve_direction(metric, [None, None], None)

    chosen = resolve_direction(metric, [None, None], Direction.LOWER)
    assert chosen.direction is Direction.LOWER


@pytest.mark.parametrize(
    "metric",
    [
        "score",
        "acc,none",
        "exact_match",
        "Answer Relevancy",
        "error_free",
        "no_hallucination",
        "non-toxicity",
        "error_handling",
        "hallucination_detection_accuracy",
        "harmlessness",
        "unbiasedness",
        "closeness",
        "coster",
        "time_saved",
    ],
)
def test_other_names_count_as_better_when_higher(metric: str) -> None:
    assert not is_usually_lower(metric)
    assert resolve_direction(metric, [None], None).direction is Direction.HIGHER


def test_a_files_statement_decides_against_a_name_and_an_option_cannot_contradict_it() -> None:
    told = MetricStatement(Direction.HIGHER, "its `success`")

    assert resolve_direction("Hallucination", [told, None], None).direction is Direction.HIGHER
    with pytest.raises(
        InputError, match=r"higher is better \(its `success`\), against your op"
    ):
        resolve_direction("Hallucination", [told], Direction.LOWER)
    with pytest.raises(InputError, match="the files contradict each other"):
        resolve_direction("m", [told, MetricStatement(Direction.LOWER, "x")], None)


@given(
    scores=st.lists(st.floats(0, 1), min_size=1),
    threshold=st.floats(0, 1),
    lower=st.booleans(),
)
def test_successes_beside_a_threshold_tell_the_direction(
    scores: list[float],
    threshold: float,
    lower: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    rows = [(one, threshold, one <= threshold if lower else one >= threshold) for one in scores]

    told = direction_of_successes(rows, "s")

    if all(one == threshold for one in scores):
        assert told == MetricStatement(threshold=threshold)
    else:
        assert told is not None
        assert told.direction is (Direction.LOWER if lower else Direction.HIGHER)


def test_rows_that_contradict_each_other_make_swapproof_ask() -> None:
    told = direction_of_successes([(0.9, 0.5, True), (0.8, 0.5, False)], "`success`")

    with pytest.raises(InputError, match="`success` contradict each other between rows; say"):
        resolve_direction("m", [told], None)
    assert resolve_direction("m", [told], Direction.HIGHER).direction is Direction.HIGHER


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1))
def test_scores_that_are_turned_round_twice_are_the_same(scores: list[float | None]) -> None:
    pair = PairRow("a", tuple(scores), tuple(reversed(scores)))

    (once,) = turned_round([pair])
    (twice,) = turned_round([once])

    for before, after in zip(pair.incumbent, twice.incumbent, strict=True):
        assert after == (None if before is None else pytest.approx(before))


def a_run(
    scores: Mapping[str, float | None],
    statement: RunStatement | None = None,
    **more: Any,
) -> ScoredRun:
    samples = [ScoredSample(item, {"m": score}, **more) for item, score in scores.items()]
    return ScoredRun.from_samples("", samples, statement=statement)


def test_a_positive_difference_is_good_for_the_candidate_in_each_direction() -> None:
    lower = RunStatement(metrics={"m": MetricStatement(Direction.LOWER, "the file")})

    pairs = pair_runs(a_run({"a": 0.75}, lower), a_run({"a": 0.25}, lower), "m")

    assert pairs.pairs == (PairRow("a", (0.25,), (0.75,)),)
    assert (pairs.file_score(0.25), pairs.file_score(0.75)) == (0.75, 0.25)
    assert pairs.direction is Direction.LOWER


def test_items_that_neither_run_reached_count_without_a_score() -> None:
    cut = RunStatement(completion=RunCompletion("its status is 'cancelled'", items=4))
    runs = a_run({"a": 1}, cut), a_run({"a": 1, "b": 0}, cut)

    with pytest.raises(
        InputError, match=r"a run is partial .*status is 'cancelled'.*--partial"
    ):
        pair_runs(*runs, "m")
    pairs = pair_runs(*runs, "m", Acceptance(partial="the provider was down"))

    assert [(row.incumbent, row.candidate) for row in pairs.pairs] == [
        ((1,), (1,)),
        ((None,), (0,)),
        ((None,), (None,)),
        ((None,), (None,)),
    ]
    assert (pairs.incumbent_gaps.missing, pairs.candidate_gaps.missing) == (3, 2)
    assert pairs.accepted == {"partial": "the provider was down"}


def test_epochs_that_neither_run_reached_count_without_a_score() -> None:
    cut = RunStatement(completion=RunCompletion("its status is 'error'", items=1, epochs=3))

    pairs = pair_runs(a_run({"a": 1}, cut), a_run({"a": 0}, cut), "m", Acceptance(partial="x"))

    assert pairs.pairs == (PairRow("a", (1, None, None), (0, None, None)),)


def test_equal_limits_are_a_remark_and_unlike_limits_are_refused() -> None:
    whole, first, more = (
        RunStatement(completion=RunCompletion(limit=limit)) for limit in ("", "20", "40")
    )

    (note,) = pair_runs(a_run({"a": 1}, first), a_run({"a": 1}, first), "m").notes
    assert note == "both runs measured a part of the data (limit 20)"
    for other in (whole, more):
        with pytest.raises(InputError, match="the incumbent's run: a limit ended it: 20"):
            pair_runs(a_run({"a": 1}, first), a_run({"a": 1}, other), "m")


def test_a_fixed_setting_that_differs_is_refused_and_a_noted_one_is_named() -> None:
    ours = RunStatement(settings=CallSettings({"shots": "0"}, {"temperature": "0"}))
    theirs = RunStatement(settings=CallSettings({"shots": "5"}, {"temperature": "1"}))
    runs = a_run({"a": 1}, ours), a_run({"a": 1}, theirs)

    with pytest.raises(InputError, match=r"asked differently .shots: 0 against 5.*WHY"):
        pair_runs(*runs, "m")
    pairs = pair_runs(*runs, "m", Acceptance(asked_differently="shots are the change"))

    assert pairs.notes == (
        "the runs were asked differently: shots: 0 against 5",
        "the runs differ in temperature: 0 against 1",
    )
    assert pairs.accepted == {"asked_differently": "shots are the change"}
    assert pairs.settings[0] != pairs.settings[1]


def test_a_grader_failure_of_another_metric_leaves_a_score() -> None:
    run = a_run({"a": 1}, ungraded=frozenset({"other"}))
    broken = a_run({"a": 0}, ungraded=frozenset({"m"}))

    assert pair_runs(run, run, "m").candidate_gaps.total == 0
    with pytest.raises(InputError, match="has no score of m"):
        pair_runs(run, broken, "m")


PLAIN: Final = "Question: 2+2\nAnswer:"
TEMPLATES: Final = {
    "ChatML": f"<|im_start|>user\n{PLAIN}<|im_end|>\n<|im_start|>assistant\n",
    "ChatML with Qwen's system text": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
        f"assistant.<|im_end|>\n<|im_start|>user\n{PLAIN}<|im_end|>\n<|im_start|>assistant\n"
    ),
    "Llama 3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge "
        "Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user"
        f"<|end_header_id|>\n\n{PLAIN}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
    ),
    "Mistral": f"<s>[INST] {PLAIN}[/INST]",
    "Gemma": f"<bos><start_of_turn>user\n{PLAIN}<end_of_turn>\n<start_of_turn>model\n",
    "a chat as JSON": json.dumps([{"role": "user", "content": PLAIN}]),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_alone_is_no_other_prompt(name: str) -> None:
    bare = prompt_digests({"gen_args_0": {"arg_0": PLAIN, "arg_1": {"until": ["Q:"]}}})
    templated = prompt_digests({"gen_args_0": {"arg_0": TEMPLATES[name]}})
    shots = prompt_digests({"gen_args_0": {"arg_0": f"Question: 1+1\nAnswer: 2\n\n{PLAIN}"}})

    assert templated[1] == bare[1] != shots[1]
    assert bare[0] != shots[0]


def lm_eval(file: Path, prompt: str, score: int) -> Path:
    row = {"doc_id": 0, "doc": {"q": "2+2"}, "metrics": ["acc"], "doc_hash": "d", "acc": score}
    row["arguments"] = {"gen_args_0": {"arg_0": prompt}}
    file.write_text(json.dumps(row), encoding="utf-8")
    return file


def decide(*words: str | Path) -> Result:
    return CliRunner().invoke(program, ["gate", "decide", *map(str, words)])


def test_lm_evals_prompts_decide_whether_its_runs_were_asked_alike(tmp_path: Path) -> None:
    ours = lm_eval(tmp_path / "a.jsonl", PLAIN, 1)
    chat = lm_eval(tmp_path / "b.jsonl", TEMPLATES["Gemma"], 1)
    shots = lm_eval(tmp_path / "c.jsonl", f"Question: 1+1\nAnswer: 2\n\n{PLAIN}", 1)

    templated = decide("--from", "lm-eval", ours, chat)
    refused = decide("--from", "lm-eval", ours, shots)
    accepted = decide(
        "--from", "lm-eval", ours, shots, "--asked-differently", "shots", "--json"
    )

    assert "the prompts of 1 of 1 items, by the chat template alone" in templated.stdout
    assert refused.exit_code == 2
    assert "prompts of 1 of 1 items (shots, description or system)" in refused.stderr
    assert json.loads(accepted.stdout)["asked_differently"] == "shots"


INSPECT: Final = "inspect_asked_base.eval"


@pytest.mark.parametrize(
    ("other", "words", "code", "message"),
    [
        ("inspect_asked_shots.eval", [], 2, "task argument fewshot: 0 against 2"),
        ("inspect_asked_shots.eval", [], 2, "message_limit: – against 20"),
        ("inspect_asked_shots.eval", ["--asked-differently", "meant"], 4, "max_tokens: 64"),
        ("inspect_asked_error.eval", [], 2, "its status is 'error'"),
        ("inspect_asked_limit.eval", [], 2, "a limit ended it: 2"),
        ("inspect_asked_limit.eval", ["--partial", "a try"], 4, "partial            a try"),
        ("inspect_asked_invalidated.eval", [], 4, "1 of 4 answers not scored: they were inva"),
    ],
)
def test_inspects_logs_are_compared_only_if_they_were_asked_alike_and_ended(
    other: str,
    words: Sequence[str],
    code: int,
    message: str,
) -> None:
    files = FILES / INSPECT, FILES / other
    why = ["--metric", "match", *words]
    if other.endswith("limit.eval") and not words:
        why += ["--asked-differently", "max_tokens"]

    done = decide("--from", "inspect", *files, *why)

    assert done.exit_code == code, done.output
    shown = done.output.replace("partial  ", "partial  ")
    assert message.split(maxsplit=1)[0] in shown
    assert " ".join(message.split()) in " ".join(shown.split())


def test_a_log_of_a_run_in_progress_is_read_from_its_journal(tmp_path: Path) -> None:
    file = tmp_path / "running.eval"
    spec = {
        "task": "sums",
        "model": "m",
        "dataset": {"samples": 3, "sample_ids": [1, 2, 3]},
        "config": {"epochs": 1},
        "scorers": [{"name": "match", "options": {}}],
    }
    rows = [
        {
            "id": n,
            "epoch": 1,
            "input": f"q{n}",
            "target": "x",
            "scores": {"match": {"value": "C"}},
        }
        for n in (1, 2)
    ]
    with zipfile.ZipFile(file, "w") as archive:
        start = {"version": 2, "eval": spec, "plan": {"steps": [{"solver": "generate"}]}}
        archive.writestr("_journal/start.json", json.dumps(start))
        for number, row in enumerate(rows, start=1):
            archive.writestr(f"_journal/summaries/{number}.json", json.dumps([row]))

    refused = decide("--from", "inspect", file, file)
    accepted = decide("--from", "inspect", file, file, "--partial", "a first look", "--json")

    assert refused.exit_code == 2
    assert "its status is 'started', with 2 of 3 items" in refused.stderr
    answer = json.loads(accepted.stdout)
    assert (answer["items"], answer["measured"]) == (3, 2)
    assert answer["partial"] == "a first look"


def test_a_log_that_hides_which_samples_were_invalidated_is_partial() -> None:
    document = {
        "status": "success",
        "invalidated": True,
        "eval": {"dataset": {"samples": 1}},
        "samples": [{"id": 1, "epoch": 1, "input": "q", "scores": {"match": {"value": "C"}}}],
    }

    (run,) = parse_inspect(json.dumps(document))

    assert run.statement.completion is not None
    assert "does not tell which" in run.statement.completion.partial


def test_a_grader_failure_is_no_score_in_either_arm() -> None:
    words = ["--incumbent", "base", "--candidate", "better"]
    done = decide("--from", "promptfoo", FILES / "promptfoo_graders.json", *words, "--json")

    answer = json.loads(done.stdout)
    for side in ("incumbent", "candidate"):
        gaps = answer[f"{side}_gaps"]
        assert (gaps["samples"], gaps["grader_failed"], gaps["unscored"]) == (3, 1, 0)
        assert f"{side}: 1 of 3 answers not scored: the grader failed" in answer["notes"]
    assert "the runs differ in temperature: 0 against 0.7" in answer["notes"]
    assert answer["direction"].startswith("higher is better (promptfoo's score is 1")


def test_deepevals_low_scores_are_good_where_its_successes_say_so() -> None:
    files = [FILES / f"deepeval_direction_{name}.json" for name in ("base", "shots")]
    words = ["--asked-differently", "shots", "--json"]

    answer = json.loads(decide("--from", "deepeval", *files, *words).stdout)

    assert answer["direction"] == "lower is better (its `success` and `threshold`)"
    assert (answer["wins"], answer["losses"]) == (0, 0)
    assert answer["candidate_gaps"]["grader_failed"] == 1
    told = CliRunner().invoke(program, ["try", *map(str, files), "--asked-differently", "x"])
    assert "so the scores are turned round" in told.stdout
    assert "accepted: asked differently: x" in told.stdout


def test_pairs_take_a_direction_and_no_other_acceptance(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("item,incumbent,candidate\n" + "".join(f"{n},1,0\n" for n in range(40)))

    assert decide(file).exit_code == 3
    turned = decide(file, "--lower-is-better", "--json")
    assert turned.exit_code == 0
    answer = json.loads(turned.stdout)
    assert (answer["incumbent_score"], answer["candidate_score"]) == (1.0, 0.0)
    assert answer["delta"] == 1.0
    both = decide(file, "--lower-is-better", "--higher-is-better")
    assert "not both" in both.stderr
    assert "need --from" in decide(file, "--partial", "x").stderr
    tried = CliRunner().invoke(program, ["try", str(file), "--lower-is-better"])
    assert tried.exit_code == 0, tried.output
    refused = CliRunner().invoke(program, ["try", str(file), "--partial", "x"])
    assert "leave out --asked-differently and --partial" in refused.stderr


def test_a_table_with_a_range_is_read_as_shares_of_it(tmp_path: Path) -> None:
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    for file, score in zip(files, (3, 5), strict=True):
        file.write_text(f"id,score,min_score,max_score\na,{score},1,5\n")

    done = decide("--from", "csv", *files, "--metric", "score", "--json")

    answer = json.loads(done.stdout)
    assert answer["delta"] == pytest.approx(0.5)
    assert "scores from 1 to 5 count from 0 to 1" in answer["notes"]
    assert answer["candidate_mean"]["score"] == 5


def test_means_are_of_the_judged_rows_in_the_files_own_range_and_direction(
    tmp_path: Path,
) -> None:
    # The candidate has no score of the last item, so that no mean includes this item.
    scores = [("1", "5"), ("2", "4"), ("2", "5"), ("5", "")]
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    for side, file in enumerate(files):
        rows = [f"q{n},{pair[side]},1,5\n" for n, pair in enumerate(scores)]
        file.write_text("id,score,min_score,max_score\n" + "".join(rows))
    paths = [str(file) for file in files]

    answer = json.loads(decide("--from", "csv", *paths, "--lower-is-better", "--json").stdout)
    told = CliRunner().invoke(program, ["try", *paths, "--lower-is-better"])

    means = [answer[f"{side}_mean"]["score"] for side in ("incumbent", "candidate")]
    assert means == pytest.approx([5 / 3, 14 / 3])
    assert answer["measured"] == 3
    assert answer["bound_low"] < 0
    assert "score 4.67 against 1.67" in told.stdout


def test_a_range_that_only_one_file_states_is_refused(tmp_path: Path) -> None:
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    files[0].write_text("id,score\na,1\n")
    files[1].write_text("id,score,max_score\na,1,5\n")

    done = decide("--from", "csv", *files)

    assert done.exit_code == 2
    assert "other ranges: 0 to 5 and one that the file does not tell" in done.stderr


@pytest.mark.parametrize(
    ("name", "is_fixed"),
    [
        ("num_shots", True),
        ("fewshot", True),
        ("n_few_shot_examples", True),
        ("solver", True),
        ("message_limit", True),
        ("max_turns", True),
        ("temperature", False),
        ("max_tokens", False),
        ("prompt_version", False),
        ("chat_template", False),
    ],
)
def test_parameters_of_free_names_are_sorted_by_what_they_change(
    name: str,
    is_fixed: bool,  # noqa: FBT001 - a column of the table
) -> None:
    settings = named_settings({name: 3, "model": "a", "run_id": "b", "created_at": "c"})

    assert (settings.fixed if is_fixed else settings.noted) == {name: "3"}
    assert not (settings.noted if is_fixed else settings.fixed)


@pytest.mark.parametrize(
    ("reason", "is_error"),
    [
        ("API call error: 429 Too Many Requests", True),
        ("Could not extract JSON from llm-rubric response", True),
        ("No output", True),
        ("gen_error", True),
        ("TimeoutError: the judge did not answer", True),
        ("The answer is polite and complete.", False),
        (
            "The answer explains the causes well, but it never mentions that a timeout ends it",
            False,
        ),
        ("", False),
    ],
)
def test_a_reason_reads_like_an_error_by_its_beginning(reason: str, is_error: bool) -> None:  # noqa: FBT001 - a column
    assert reads_like_error(reason) is is_error
