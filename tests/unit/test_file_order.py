"""The rows of a finished file are judged together: their order changes no byte of an answer."""

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness.evals.file_gate.pair_judgement import find_sight, judge_rows
from harness.evals.file_gate.terms import FileTerms
from harness.evals.scored_run import PairRow
from harness.gate.suite_plan import Claim
from harness.interfaces.cli.program import program

pytestmark = pytest.mark.req("F2", "A7")

EXPORTS = Path(__file__).parents[1] / "support" / "evals" / "exports"
SCORES = st.sampled_from([0.0, 1.0, 0.1, 0.3, 1 / 3, None])


@st.composite
def files(draw: st.DrawFn) -> list[PairRow]:
    epochs = draw(st.integers(1, 3))
    scores = st.tuples(*[SCORES] * epochs)
    sides = draw(st.lists(st.tuples(scores, scores), min_size=1, max_size=40))
    clusters = st.sampled_from("abcdefgh")
    # With twice as many rows, one slice has the 60 units of a guarded slice.
    return [
        PairRow(f"q{n}", ours, theirs, (draw(clusters),))
        for n, (ours, theirs) in enumerate(sides)
    ]


TERMS = st.builds(
    FileTerms,
    claim=st.sampled_from([Claim.SUPERIOR, Claim.NON_INFERIOR]),
    margin=st.just(0.05),
    alpha=st.just(0.05),
    n_max=st.sampled_from([None, 60]),
    cluster=st.sampled_from(["", "document"]),
)


@pytest.mark.spine
@pytest.mark.req("H1")
@given(rows=files(), terms=TERMS, seed=st.integers(0, 2**32))
def test_every_permutation_of_the_rows_gives_the_same_bytes(
    rows: list[PairRow], terms: FileTerms, seed: int
) -> None:
    mixed = random.Random(seed).sample(rows, len(rows))

    first, second = (
        json.dumps([judge_rows(order, terms), vars_of(find_sight(order, terms))])
        for order in (rows, mixed)
    )

    assert first == second


def vars_of(sight: object) -> list[float]:
    return [getattr(sight, name) for name in ("smallest", "items_needed")]


def sliced(count: int, seed: int) -> list[PairRow]:
    """Two slices; the candidate is worse in the smaller one, and better in the other."""
    drawn = random.Random(seed)
    rows = []
    for n in range(count):
        worse = n < count // 3
        ours, theirs = (0.9, 0.4) if worse else (0.3, 0.9)
        scores = (float(drawn.random() < share) for share in (ours, theirs))
        a, b = scores
        group = ("legal" if worse else "chat",)
        rows.append(PairRow(f"q{n}", (a,), (b,), (*group, f"d{n // 2}")))
    return rows


@pytest.mark.parametrize("cluster", ["", "document"])
def test_a_slice_is_judged_on_all_its_rows_in_any_order(cluster: str) -> None:
    rows = [
        PairRow(
            row.item,
            row.incumbent,
            row.candidate,
            (row.groups[1], row.groups[0]) if cluster else row.groups[:1],
        )
        for row in sliced(480, 7)
    ]
    terms = FileTerms(Claim.SUPERIOR, 0.05, 0.05, None, cluster, ("topic",))

    answers = {
        json.dumps(judge_rows(order, terms)) for order in (rows, rows[::-1], mixed_rows(rows))
    }

    assert len(answers) == 1
    answer: dict[str, Any] = json.loads(answers.pop())
    assert answer["verdict"] == "failed"
    assert [slice_["worse"] for slice_ in answer["slices"]] == [False, True]
    assert all(slice_["n_used"] == slice_["n"] for slice_ in answer["slices"])
    assert answer["n_used"] == answer["n"]


def mixed_rows(rows: Sequence[PairRow]) -> list[PairRow]:
    return random.Random(3).sample(rows, len(rows))


def mix_lines(text: str, drawn: random.Random) -> str:
    lines = text.splitlines()
    return "\n".join(drawn.sample(lines, len(lines))) + "\n"


def mix_table(text: str, drawn: random.Random) -> str:
    head, *rows = csv.reader(io.StringIO(text))
    written = io.StringIO()
    csv.writer(written).writerows([head, *drawn.sample(rows, len(rows))])
    return written.getvalue()


def mix_lists(text: str, drawn: random.Random) -> str:
    """Mixes the list of results, where each tool writes it."""
    document = json.loads(text)

    def mixed(value: object, depth: int = 0) -> object:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return drawn.sample(value, len(value))
        if isinstance(value, dict) and depth < 2:
            return {name: mixed(inner, depth + 1) for name, inner in value.items()}
        return value

    return json.dumps(mixed(document))


@pytest.mark.parametrize("options", [["--json"], []])
def test_items_without_a_partner_are_named_in_one_order(
    tmp_path: Path, options: list[str]
) -> None:
    ours = [f"q{n},{n % 2}" for n in range(30)]
    theirs = [f"q{n},{n % 3 > 0:d}" for n in range(12, 44)]
    reports = set()
    for seed in range(4):
        drawn = random.Random(seed)
        files = []
        for arm, rows in (("incumbent", ours), ("candidate", theirs)):
            file = tmp_path / f"{arm}.csv"
            mixed = drawn.sample(rows, len(rows)) if seed else rows
            file.write_text("\n".join(["question,score", *mixed]), encoding="utf-8")
            files.append(str(file))
        reports.add(CliRunner().invoke(program, ["try", *files, *options]).stdout)

    assert len(reports) == 1
    assert "without a partner" in reports.pop()


MIXED: list[tuple[list[str], list[str], Callable[[str, random.Random], str]]] = [
    (
        ["lm_eval_repeats_base.jsonl", "lm_eval_repeats_better.jsonl"],
        ["--metric", "exact_match,maj"],
        mix_lines,
    ),
    (
        ["openai_evals_fuzzy_base.jsonl", "openai_evals_fuzzy_better.jsonl"],
        ["--metric", "f1_score"],
        mix_lines,
    ),
    (["braintrust_incumbent.json", "braintrust_candidate.json"], [], mix_lists),
    (["langfuse_incumbent.json", "langfuse_candidate.json"], [], mix_lists),
    (
        ["langsmith_incumbent.csv", "langsmith_candidate.csv"],
        ["--metric", "correct"],
        mix_table,
    ),
    (["deepeval_incumbent.json", "deepeval_candidate.json"], [], mix_lists),
    (
        ["promptfoo_both.json"],
        [
            "--incumbent",
            "openai:gpt-4o-mini",
            "--candidate",
            "anthropic:messages:claude-haiku-4-5",
        ],
        mix_lists,
    ),
]


@pytest.mark.parametrize(("names", "options", "mix"), MIXED)
def test_every_importer_gives_the_same_report_for_mixed_rows(
    tmp_path: Path,
    names: list[str],
    options: list[str],
    mix: Callable[[str, random.Random], str],
) -> None:
    reports = set()
    for seed in range(4):
        drawn = random.Random(seed)
        for name in names:
            text = (EXPORTS / name).read_text(encoding="utf-8")
            (tmp_path / name).write_text(mix(text, drawn) if seed else text, encoding="utf-8")
        files = [str(tmp_path / name) for name in names]
        done = CliRunner().invoke(program, ["try", *files, *options, "--json"])
        assert done.exit_code in {0, 1, 3, 4}, done.output
        reports.add(done.stdout)

    assert len(reports) == 1
