"""`gate decide --from` and `try`: results of other tools become pairs, for a report alone."""

import ast
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.evals.export_formats import parse_promptfoo
from harness.evals.inspect_log import parse_inspect
from harness.evals.run_pairs import pair_runs
from harness.evals.run_statement import Acceptance
from harness.evals.scored_run import ExportedPairs, GapCount, ScoredRun, ScoredSample
from harness.frame.errors import InputError
from harness.interfaces.cli.evals import export_decision, file_decision, next_command
from harness.interfaces.cli.evals.export_decision import (
    EXPORT_FORMATS,
    ExportChoice,
    read_exports,
    recognise_file,
)
from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("G1", "F2")
ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "tests/support/evals/exports"
# The four sums: the incumbent is wrong about the third, the candidate fails at the last.
SUMS = [
    (1.0, 1.0),
    (1.0, 1.0),
    (0.0, 1.0),
    (1.0, None),
]
SIDES = ("incumbent", "candidate")
EXAMPLES = {
    "promptfoo": ["promptfoo_both.json"],
    "braintrust": [f"braintrust_{side}.json" for side in SIDES],
    "langsmith": [f"langsmith_{side}.csv" for side in SIDES],
    "openai-evals": [f"openai_evals_{side}.jsonl" for side in SIDES],
    "inspect": [f"inspect_{side}.eval" for side in SIDES],
    "langfuse": [f"langfuse_{side}.json" for side in SIDES],
}
OTHERS = {"lm-eval", "deepeval", "csv", "columns"}
CHOICES = {
    "promptfoo": ExportChoice(
        "promptfoo",
        "openai:gpt-4o-mini",
        "anthropic:messages:claude-haiku-4-5",
    ),
    "langsmith": ExportChoice("langsmith", metric="correct"),
    # The candidate's task has the argument that makes a sample fail.
    "inspect": ExportChoice(
        "inspect",
        metric="match",
        acceptance=Acceptance(asked_differently="the argument only causes an error"),
    ),
}


def paths(names: Sequence[str]) -> list[str]:
    return [str(FILES / name) for name in names]


def exported(format_name: str) -> ExportedPairs:
    choice = CHOICES.get(format_name, ExportChoice(format_name))
    return read_exports(paths(EXAMPLES[format_name]), choice)


@pytest.mark.parametrize("format_name", EXAMPLES)
def test_each_format_gives_the_same_pairs_with_its_error_counted(format_name: str) -> None:
    result = exported(format_name)

    epochs = 2 if format_name == "inspect" else 1
    wanted = [((ours,) * epochs, (theirs,) * epochs) for ours, theirs in SUMS]
    assert [(pair.incumbent, pair.candidate) for pair in result.pairs] == wanted
    assert result.candidate_gaps == GapCount(
        4 * epochs,
        failed=epochs,
        unscored=0,
        missing=0,
    )
    assert result.incumbent_gaps.total == 0


def test_lm_evals_samples_are_paired_by_document(tmp_path: Path) -> None:
    files = paths([f"lm_eval_{side}.jsonl" for side in SIDES])

    result = read_exports(files, ExportChoice("lm-eval"))

    assert result.metric == "acc"
    assert [pair.item for pair in result.pairs] == list("012345")
    assert [sum(pair.incumbent) for pair in result.pairs if None not in pair.incumbent]  # type: ignore[arg-type]
    assert read_exports(files, ExportChoice("lm-eval", metric="acc_norm")).metric == "acc_norm"
    tasks = [tmp_path / f"samples_{task}_2026-11-27T23-35-24.1.jsonl" for task in ("a_b", "a")]
    for file, task in zip(files, tasks, strict=True):
        task.write_bytes(Path(file).read_bytes())
    with pytest.raises(InputError, match="the runs differ in task: 'a_b' and 'a'"):
        read_exports([f"{task}" for task in tasks], ExportChoice("lm-eval"))


def test_output_items_of_the_evals_api_are_read_as_well() -> None:
    file = FILES / "openai_evals_items.json"

    (run,) = EXPORT_FORMATS["openai-evals"].parse(file.read_text())

    assert run.model == "gpt-4o-mini"
    assert [sample.scores["Exact match"] for sample in run.samples] == [1, 1, 0, 1]


def test_every_format_has_an_example_and_stands_in_the_help() -> None:
    assert set(EXPORT_FORMATS) == {*EXAMPLES, *OTHERS} == set(file_decision.EXPORTS)


def test_the_command_reports_gaps_and_says_that_it_promotes_nothing() -> None:
    words = ["--from", "braintrust", *paths(EXAMPLES["braintrust"])]

    done = CliRunner().invoke(program, ["gate", "decide", *words, "--json"])
    shown = CliRunner().invoke(program, ["gate", "decide", *words])

    answer = json.loads(done.stdout)
    assert done.exit_code == 4
    assert (
        answer["verdict"],
        answer["wins"],
        answer["losses"],
    ) == (
        "inconclusive",
        1,
        0,
    )
    assert (
        answer["measured"],
        answer["bound_low"],
        answer["bound_high"],
    ) == (3, 0.0, 0.25)
    assert answer["candidate_gaps"] == {
        "samples": 4,
        "failed": 1,
        "unscored": 0,
        "missing": 0,
        "grader_failed": 0,
        "invalidated": 0,
    }
    assert answer["use"] == export_decision.REPORT_ONLY
    assert "4 samples, 1 failed, 0 unscored, 0 missing" in shown.stdout
    assert "it promotes nothing" in shown.stdout


def test_no_code_of_exports_can_reach_a_verdict_or_the_database() -> None:
    """What promotes takes a `Passed` of a stored verdict: nothing here makes or stores one."""
    names = (
        "export_formats",
        "inspect_log",
        "openai_evals",
        "run_pairs",
        "run_statement",
        "scored_run",
        "table_formats",
        "tool_statements",
    )
    files = [ROOT / f"harness/evals/{name}.py" for name in names]
    files += [Path(export_decision.__file__), Path(next_command.__file__)]
    imported = {
        (node.module, name.name)
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }

    rooms = {module for module, _ in imported if module.startswith("harness")}
    own = tuple(f"harness.evals.{name}" for name in names)
    assert all(
        module.startswith((*own, "harness.frame", "harness.evals.file_gate"))
        or module == next_command.__name__
        for module in rooms
    )
    assert not {name for _, name in imported} & {
        "Passed",
        "Verdict",
        "Store",
        "Context",
    }


def run(*scores: tuple[str, float | None], failed: str = "") -> ScoredRun:
    samples = [ScoredSample(item, {"m": score}, item == failed) for item, score in scores]
    return ScoredRun.from_samples("", samples)


def test_what_only_one_run_has_counts_as_missing_and_is_never_dropped() -> None:
    ours = run(("a", 1), ("b", 0), ("b", 1), ("c", None))
    theirs = run(("b", 1), ("c", 1), ("d", 1), failed="c")

    result = pair_runs(ours, theirs, "m")

    assert [pair.item for pair in result.pairs] == ["a", "b", "c", "d"]
    assert result.pairs[0].candidate == (None,)
    assert result.pairs[1].candidate == (1, None)
    assert result.incumbent_gaps == GapCount(
        4,
        failed=0,
        unscored=1,
        missing=1,
    )
    assert result.candidate_gaps == GapCount(
        3,
        failed=1,
        unscored=0,
        missing=2,
    )


@pytest.mark.parametrize(
    ("format_name", "text", "message"),
    [
        ("promptfoo", "{}", "has no results.results"),
        ("promptfoo", "{", "line 1: not JSON"),
        ("braintrust", "[1]", "has no list of rows"),
        ("braintrust", '{"input": 1}', "has no rows with `scores`"),
        ("langsmith", "a,b\n1,2\n", "has no columns feedback.NAME"),
        (
            "langsmith",
            "feedback.m\n1\n",
            "has rows with neither an example_id",
        ),
        ("openai-evals", '{"a": 1}\n[2]\n', "line 2: not a JSON object"),
        ("openai-evals", '{"a": 1}', "contains neither events of oaieval"),
        ("lm-eval", '{"a": 1}', "line 1: has no doc_id"),
        ("inspect", '{"samples": []}', "has no samples"),
        (
            "promptfoo",
            f'{{"score": {"9" * 5_000}}}',
            "contains a number with too many digits",
        ),
        (
            "lm-eval",
            f'{{"score": {"9" * 5_000}}}',
            "line 1: not a JSON object",
        ),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_is_wrong(
    tmp_path: Path,
    format_name: str,
    text: str,
    message: str,
) -> None:
    file = tmp_path / "results"
    file.write_text(text)

    with pytest.raises(InputError) as refusal:
        read_exports([str(file), str(file)], ExportChoice(format_name))

    assert str(refusal.value).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--from", "promptfoo", *paths(["promptfoo_both.json"])],
            "with --incumbent and --candid",
        ),
        (
            ["--from", "langsmith", *paths(EXAMPLES["langsmith"])],
            "by --metric: correct, short",
        ),
        (["--metric", "x", "pairs.csv"], "--partial need --from"),
        (["a.csv", "b.csv"], "name the tool of other files with --from"),
        (["--from", "lm-eval", "--cluster", "c", "a"], "without --from"),
        (
            ["--from", "inspect", str(FILES / "README.md"), "b"],
            "README.md: line 1: not JSON",
        ),
    ],
)
def test_what_is_not_said_clearly_is_bad_input(words: list[str], message: str) -> None:
    done = CliRunner().invoke(program, ["gate", "decide", *words])

    assert done.exit_code == 2
    assert message in done.stderr


def test_no_file_of_another_tool_breaks_the_program_or_the_terminal(tmp_path: Path) -> None:
    archive = tmp_path / "log.eval"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as parts:
        for name in ("header.json", "summaries.json"):
            parts.writestr(name, json.dumps({"eval": list(range(500))}))
    content = bytearray(archive.read_bytes())
    content[60:90] = bytes(30)
    archive.write_bytes(bytes(content))
    with pytest.raises(InputError, match="convert it with"):
        read_exports([str(archive), str(archive)], ExportChoice("inspect"))

    text = (FILES / EXAMPLES["promptfoo"][0]).read_text(encoding="utf-8")
    hostile = tmp_path / "both.json"
    hostile.write_text(text.replace("openai:gpt-4o-mini", "a\\u001b[2Jb"), encoding="utf-8")
    names = [
        "--incumbent",
        "a\x1b[2Jb",
        "--candidate",
        CHOICES["promptfoo"].candidate,
    ]
    done = CliRunner().invoke(
        program,
        ["gate", "decide", "--from", "promptfoo", *names, str(hostile)],
    )
    assert "\N{REPLACEMENT CHARACTER}[2Jb" in done.stdout, done.output
    assert "\x1b" not in done.stdout


def sample(
    id_: str,
    score: float | None,
    **more: Any,
) -> ScoredSample:
    return ScoredSample(id_, {"m": score}, **more)


def pair(
    ours: Sequence[ScoredSample],
    theirs: Sequence[ScoredSample],
    terms: Sequence[dict[str, str]] = ({}, {}),
) -> ExportedPairs:
    first = ScoredRun.from_samples("a", ours, terms[0])
    return pair_runs(first, ScoredRun.from_samples("b", theirs, terms[1]), "m")


def test_repeats_of_a_question_are_one_item_whatever_their_ids_and_places_are() -> None:
    ours = [sample(str(n), n % 2, question=f"q{n // 2}") for n in range(4)]
    theirs = [sample(f"x{n}", n % 2, question=f"q{(3 - n) // 2}") for n in range(4)]
    theirs.append(
        sample(
            "y",
            1,
            question="q9",
            cached=True,
        )
    )

    result = pair(ours, theirs)

    scored = [(row.item, row.incumbent, row.candidate) for row in result.pairs]
    assert scored[:2] == [("0", (0, 1), (0, 1)), ("2", (0, 1), (0, 1))]
    assert scored[2] == ("y", (None,), (1,))
    assert result.notes == (
        "candidate: 1 of 5 answers are from a cache",
        "candidate: 1 without a partner: 'y'",
    )
    one_text = [sample(str(n), 1, question="q") for n in range(3)]
    by_id = pair(one_text, one_text)
    assert [row.item for row in by_id.pairs] == ["0", "1", "2"]
    assert by_id.notes[0].startswith(
        "all 3 ids have the same text, so each id counts as an item"
    )


def judge_questions(folder: Path, questions: Sequence[str]) -> dict[str, Any]:
    """Judges results of two models: the candidate is better at every third question."""
    rows = [
        f'{model},"{text}",{int(model == "b" or n % 60 >= 20)}'
        for model in "ab"
        for n, text in enumerate(questions)
    ]
    file = folder / "results.csv"
    file.write_text("\n".join(["model,question,score", *rows]), encoding="utf-8")
    done = tried("--json", file, "--incumbent", "a", "--candidate", "b")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def numbered(number: int) -> str:
    return " ".join(f"word{number}x{place}" for place in range(20))


@pytest.mark.parametrize("ending", [" please", "!", " "])
def test_similar_questions_of_a_file_count_once(tmp_path: Path, ending: str) -> None:
    questions = [numbered(n) for n in range(60)]

    found = judge_questions(tmp_path, [*questions, *(f"{text}{ending}" for text in questions)])

    assert (found["n_used"], found["wins"]) == (60, 20)


def test_different_questions_of_a_file_stay_single(tmp_path: Path) -> None:
    found = judge_questions(
        tmp_path, [f"Translate into French: {numbered(n)}" for n in range(60)]
    )

    assert (found["n_used"], found["notes"]) == (60, [])


@pytest.mark.parametrize(
    ("ours", "theirs", "terms", "message"),
    [
        (
            {"question": "p"},
            {"question": "q"},
            {},
            "item '1' is not the same in both runs",
        ),
        (
            {"revision": "p"},
            {"revision": "q"},
            {},
            "item '1' is not the same in both runs",
        ),
        (
            {},
            {},
            {"task version": ("1", "2")},
            "differ in task version: '1' and '2'",
        ),
        (
            {},
            {},
            {"scorer m": ("{}", "{x}")},
            "differ in scorer m",
        ),
        (
            {},
            {},
            {"scorer n": ("{}", "{x}")},
            "",
        ),
        (
            {"unread": {"m": "A+"}},
            {},
            {},
            "m of run 'a' cannot be read as scores: 1 sample has the value 'A.'",
        ),
    ],
)
def test_runs_that_are_no_answers_to_the_same_questions_are_refused(
    ours: dict[str, Any],
    theirs: dict[str, Any],
    terms: dict[str, tuple[str, str]],
    message: str,
) -> None:
    first = [sample("1", None if "unread" in ours else 1, **ours)]
    both = [{name: values[arm] for name, values in terms.items()} for arm in (0, 1)]

    if not message:
        assert pair(first, [sample("1", 1)], both).pairs
        return
    with pytest.raises(InputError, match=message):
        pair(first, [sample("1", 1, **theirs)], both)


def promptfoo_row(test: int, **vars_: str) -> dict[str, object]:
    asserts = [{"type": "equals", "value": vars_.pop("wanted", "x")}]
    return {
        "testIdx": test,
        "vars": vars_,
        "testCase": {"assert": asserts},
        "score": 1,
    }


def test_promptfoos_item_is_its_variables_and_assertions_and_never_its_row() -> None:
    rows = [
        promptfoo_row(0, q="apple"),
        promptfoo_row(
            1,
            q="apple",
            sessionId="s",
            _conversation="c",
        ),
        promptfoo_row(2, q="apple", wanted="y"),
        promptfoo_row(3, q="plum"),
    ]

    (run,) = parse_promptfoo(json.dumps({"results": {"results": rows}}))

    keys = [sample.question for sample in run.samples]
    assert keys[0] == keys[1]
    assert len({*keys}) == 3
    with pytest.raises(InputError, match="neither vars nor a prompt"):
        parse_promptfoo(json.dumps({"results": [{"testIdx": 0, "score": 1}]}))


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("C", 1),
        ("P", 0.5),
        ("N", 0),
        ("Yes", 1),
        ("TRUE", 1),
        ("no", 0),
        ("0.5", 0.5),
    ],
)
def test_inspects_scores_are_read_as_inspect_reads_them(value: str, score: float) -> None:
    rows = [
        {
            "id": n,
            "input": f"{n}",
            "scores": {"s": {"value": given}},
        }
        for n, given in enumerate((value, "A+", None, float("nan")))
    ]

    (run,) = parse_inspect(json.dumps({"samples": rows}))

    assert [one.scores["s"] for one in run.samples] == [
        score,
        None,
        None,
        None,
    ]
    assert [dict(one.unread) for one in run.samples] == [
        {},
        {"s": "A+"},
        {},
        {},
    ]


def test_inspects_long_and_pictured_questions_are_told_apart_by_their_ids() -> None:
    long = "x" * 6_000
    picture = [{"role": "user", "content": [{"type": "image"}]}]
    given = ["2+2", "2+2", long, long, picture, picture]
    rows = [
        {
            "id": n,
            "input": question,
            "scores": {},
        }
        for n, question in enumerate(given)
    ]

    (run,) = parse_inspect(json.dumps({"samples": rows}))

    assert len({one.question for one in run.samples}) == 5


def test_scores_beyond_0_to_1_are_refused() -> None:
    with pytest.raises(InputError, match="m of item 'a' is 7: scores are from 0 to 1"):
        pair_runs(run(("a", 7)), run(("a", 1)), "m")


def tried(*words: str | Path) -> Result:
    return CliRunner().invoke(program, ["try", *map(str, words)])


@pytest.mark.spine
@pytest.mark.req("H1")
@pytest.mark.parametrize("file", sorted(FILES.glob("*_*.*")), ids=lambda file: file.name)
def test_a_file_is_recognised_by_its_content(tmp_path: Path, file: Path) -> None:
    named_otherwise = tmp_path / "results"
    named_otherwise.write_bytes(file.read_bytes())

    tool = recognise_file(str(named_otherwise)).replace("-", "_")

    assert tool
    assert file.name.startswith(tool)


def repeated(wrong: int) -> str:
    """20 questions, each asked 10 times; the answers to the first `wrong` are wrong."""
    rows = [f"question {n};{int(n >= wrong)}" for _ in range(10) for n in range(20)]
    return "\n".join(["question;score", *rows])


@pytest.mark.spine
@pytest.mark.req("H1")
@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ((10, 9), 4, "points worse and 24 better: not enough to decide"),
        ((19, 1), 0, "points better: that shows that it is better"),
        ((0, 20), 3, "points worse: that shows that it is worse"),
    ],
)
def test_the_answer_is_in_plain_words_with_what_could_be_seen(
    tmp_path: Path,
    wrong: tuple[int, int],
    code: int,
    words: str,
) -> None:
    files = tmp_path / "incumbent.csv", tmp_path / "candidate.csv"
    for file, first in zip(files, wrong, strict=True):
        file.write_text(repeated(first), encoding="utf-16")

    done = tried(*files)

    assert done.exit_code == code, done.output
    assert "20 questions × 10 repeats are 20 items, scored by `score`." in done.stdout
    assert words in done.stdout
    # A shown loss needs no items to see a difference.
    assert ("with these 20, only " in done.stdout) == (code != 3)
    assert "next: " in done.stdout.splitlines()[-2]


def test_one_json_object_has_all_figures(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("item,incumbent,candidate\na,1,0\nb,0,1\n")

    answer = json.loads(tried(file, "--json").stdout)

    assert (
        answer["verdict"],
        answer["items"],
        answer["epochs"],
    ) == (
        "inconclusive",
        2,
        1,
    )
    assert answer["items_for_5_points"] > 100
    assert answer["smallest_difference"] > 0.5
    for score in (1, 0.5):
        rows = "".join(f"{item},{score},{score}\n" for item in range(100))
        file.write_text(f"item,incumbent,candidate\n{rows}")
        tied = json.loads(tried(file, "--json").stdout)
        assert tied["smallest_difference"] > tied["ci_high"] > 0.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "prompts: [a]\nproviders: [b]\n",
            "looks like a promptfoo configuration",
        ),
        (
            '{"messages": []}',
            "looks like a data set of conversations, and has no readable scores",
        ),
        (
            "a,b\n1,2\n",
            "has no column that tells the questions apart: give the column",
        ),
        ("", "is neither JSON nor a table"),
        ("[]", "has no results"),
        ('{"id": 1,}\n{"id": 2,}\n', "line 1: not JSON"),
        (
            "id,score,score\n1,1,0\n",
            "line 1: two columns have the name 'score'",
        ),
        (
            "item,score\na,A+\n",
            "score of run '' cannot be read as scores: 1 sample has the",
        ),
        ("item,incumbent,candidate\n", "no items"),
    ],
)
def test_a_file_without_results_is_told_what_it_looks_like(
    tmp_path: Path,
    content: str,
    message: str,
) -> None:
    first = tmp_path / "first"
    second = tmp_path / "second"
    first.write_text(content)
    second.write_text(content)

    done = tried(first) if "candidate" in content else tried(first, second)

    assert done.exit_code == 2
    assert message in done.stderr


def test_a_table_of_two_models_has_two_runs_and_an_error_is_no_score(tmp_path: Path) -> None:
    file = tmp_path / "both.csv"
    rows = "0,1,a,0,timeout\n1,1,b,1,None\n2,2,a,1,\n3,2,b,1,\n"
    file.write_text(",id,model,score,error\n" + rows)  # pandas' index has no name

    done = tried(file, "--incumbent", "a", "--candidate", "b", "--json")

    answer = json.loads(done.stdout)
    gaps = [answer[f"{side}_gaps"] for side in ("incumbent", "candidate")]
    assert [(gap["samples"], gap["failed"]) for gap in gaps] == [
        (2, 1),
        (2, 0),
    ]


def test_files_of_two_tools_are_no_pair() -> None:
    done = tried(FILES / "deepeval_incumbent.json", FILES / "langfuse_candidate.json")

    assert done.exit_code == 2
    assert "is from DeepEval" in done.stderr
