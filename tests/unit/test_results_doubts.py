"""Files that would promote a worse model if Swapproof believed them are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("G1", "F2")

ITEMS: Final = range(40)
SIDES: Final = ("incumbent", "candidate")
Writer = Callable[[str, int], str]


def table(header: str, incumbent: str, candidate: str) -> Writer:
    """Returns a writer of a CSV whose rows have these cells after the id."""

    def write(side: str, score: int) -> str:
        cells = incumbent if side == "incumbent" else candidate
        rows = "".join(f"q{n},{cells.format(score=score)}\n" for n in ITEMS)
        return f"id,{header}\n{rows}"

    return write


def deepeval(judges: dict[str, str], extra: list[dict[str, Any]]) -> Writer:
    def write(side: str, score: int) -> str:
        one = {"name": "Tone", "threshold": 0.5, "success": bool(score), "score": score}
        graded = [{**one, "evaluationModel": judges[side]}, *extra]
        cases = [
            {"name": f"t{n}", "input": f"q{n}", "actualOutput": "a", "metricsData": graded}
            for n in ITEMS
        ]
        return json.dumps({"testCases": cases, "testPassed": len(ITEMS), "testFailed": 0})

    return write


def inspect_log(side: str, score: int) -> str:
    spec = {"task": "t", "model": side, "dataset": {}, "scorers": [{"name": "model_graded_qa"}]}
    grade = {"model_graded_qa": {"value": "C" if score else "I"}}
    rows = [{"id": n, "input": f"q{n}", "target": "x", "scores": grade} for n in ITEMS]
    return json.dumps({"status": "success", "eval": spec, "samples": rows})


def oaieval_log(side: str, score: int) -> str:
    config = {"eval_spec": {"cls": "evals.elsuite.modelgraded.classify:ModelBasedClassify"}}
    spec = {"eval_name": "e", "completion_fns": [side], "run_config": config}
    graded = {"type": "metrics", "data": {"score": score}}
    rows = [{"sample_id": f"s{n}", **graded} for n in ITEMS]
    return "\n".join(map(json.dumps, [{"spec": spec}, *rows, {"final_report": {"n": 1}}]))


def appended_oaieval_log(side: str, score: int) -> str:
    """Returns a log in which the candidate has a second attempt at each sample."""
    attempts = [score] if side == "incumbent" else [0, score]
    spec = {"eval_name": "e", "completion_fns": [side], "run_config": {}}
    rows = [
        {"sample_id": f"s{n}", "type": "match", "data": {"correct": bool(one)}}
        for one in attempts
        for n in ITEMS
    ]
    return "\n".join(map(json.dumps, [{"spec": spec}, *rows, {"final_report": {"n": 1}}]))


def appended_lm_eval_samples(side: str, score: int) -> str:
    attempts = [score] if side == "incumbent" else [0, score]
    rows = [
        {"doc_id": n, "doc": {"q": f"q{n}"}, "metrics": ["acc"], "acc": one}
        for one in attempts
        for n in ITEMS
    ]
    return "\n".join(map(json.dumps, rows))


def langfuse_run(side: str, score: int) -> str:
    twice = [0, score] if side == "candidate" else [score]
    scores = [{"name": "correct", "value": one} for one in twice]
    rows = [{"item": {"id": f"i{n}", "input": f"q{n}"}, "evaluations": scores} for n in ITEMS]
    return json.dumps({"item_results": rows})


def lm_eval_samples(side: str, score: int) -> str:
    rows = [
        {
            "doc_id": n,
            "doc": {"question": f"q{n}", "answer": side},
            "doc_hash": f"{side}{n}",
            "arguments": [[f"shot {side} q{n}", " a"]],
            "metrics": ["acc"],
            "acc": score,
        }
        for n in ITEMS
    ]
    return "\n".join(map(json.dumps, rows))


SAME: Final = dict.fromkeys(SIDES, "gpt-4o")
SECOND: Final = {"name": "Tone", "threshold": 0.5, "success": True, "score": 0.9}
RANGES: Final = table("score,max_score", "{score},1", "{score},ten")
DOUBTS: Final[dict[str, tuple[Writer, str]]] = {
    "a pass at another threshold": (
        table("passed,threshold", "{score},0.9", "{score},0.3"),
        "passes an answer at 0.9 in one run, and at 0.3 in the other",
    ),
    "another judge in a table": (
        table("score,judge_model", "{score},large", "{score},small"),
        "judge_model: large against small",
    ),
    "a range that is no number": (RANGES, "has no single range"),
    "a number with an underscore": (table("score", "{score}", "0_{score}"), "'0_1'"),
    "one success for all rows": (
        table("score,threshold,success", ".{score},0.5,true", ".{score},0.5,true"),
        "has one value, so it tells no direction",
    ),
    "another judge of DeepEval": (
        deepeval({"incumbent": "gpt-4o", "candidate": "small"}, []),
        "'graded by gpt-4o' and 'graded by small'",
    ),
    "two metrics of one name": (deepeval(SAME, [SECOND]), "two scores of one name: 0 and 0.9"),
    "two scores of one name in Langfuse": (langfuse_run, "two scores of one name"),
    "second attempts in a log of oaieval": (appended_oaieval_log, "two scores of one name"),
    "second attempts in samples of lm-eval": (
        appended_lm_eval_samples,
        "two scores of one name",
    ),
    "models of Inspect that grade themselves": (inspect_log, "graded by incumbent"),
    "models of oaieval that grade themselves": (oaieval_log, "differ in grader model"),
}


def tried(folder: Path, write: Writer, scores: tuple[int, int], *words: str) -> tuple[int, str]:
    files = [folder / side for side in SIDES]
    for file, side, score in zip(files, SIDES, scores, strict=True):
        file.write_text(write(side, score))
    done = CliRunner().invoke(program, ["try", *map(str, files), *words])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", DOUBTS)
def test_a_file_that_could_flatter_the_candidate_is_refused(tmp_path: Path, name: str) -> None:
    write, message = DOUBTS[name]

    code, output = tried(tmp_path, write, (0, 1))

    assert code == 2, output
    assert message in output


def test_runs_that_were_asked_differently_still_need_the_same_expected_answers(
    tmp_path: Path,
) -> None:
    words = "--asked-differently", "other shots"

    code, output = tried(tmp_path, lm_eval_samples, (0, 1), *words)

    assert code == 2, output
    assert "item '0' is not the same in both runs" in output


def test_a_file_that_does_not_tell_how_its_model_was_asked_is_named(tmp_path: Path) -> None:
    told = table("score,temperature", "{score},0", "")
    files = [tmp_path / side for side in SIDES]
    files[0].write_text(told("incumbent", 1))
    files[1].write_text("id,score\n" + "".join(f"q{n},1\n" for n in ITEMS))

    done = CliRunner().invoke(program, ["try", *map(str, files)])

    assert "candidate: the file does not tell how the model was asked" in done.output
