"""`gate decide` on plain files: figures, exit codes, and every bad input with its place."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.frame import text_files
from harness.gate.offline.design import Design
from harness.gate.offline.sequential import judge_differences
from harness.gate.suite_plan import Claim, Looks
from harness.interfaces.cli.program import program
from tests.unit.test_gate_slices import clustered
from tests.unit.test_gate_verdicts import ask, sides

pytestmark = pytest.mark.req("F2", "A7")

HEAD = "item,incumbent,candidate\n"
FIELDS = [
    "verdict",
    "how",
    "n_used",
    "n",
    "incumbent_score",
    "candidate_score",
    "delta",
    "ci_low",
    "ci_high",
    "ci_method",
    "log_e_bad",
    "p_final",
    "wins",
    "ties",
    "losses",
    "points_to",
    "more_items",
    "look",
    "alpha",
    "reason",
]
Decide = Callable[..., Result]


@pytest.fixture
def decide(tmp_path: Path) -> Decide:
    def run(content: str | bytes, *options: str) -> Result:
        file = tmp_path / "pairs.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(program, ["gate", "decide", str(file), *options])

    return run


def rows(scores: list[tuple[object, object]]) -> str:
    return HEAD + "".join(f"q{n},{a},{b}\n" for n, (a, b) in enumerate(scores))


def answer(result: Result) -> dict[str, Any]:
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_a_winner_passes_with_every_figure(decide: Decide) -> None:
    result = decide(rows([(0, 1)] * 20), "--json")
    found = answer(result)

    assert result.exit_code == 0
    assert list(found) == FIELDS
    wanted = judge_differences([1.0] * 20, Design(Claim.SUPERIOR, 0.05, 20, looks=Looks.WHOLE))
    assert (
        found["verdict"],
        found["how"],
        found["n"],
    ) == (
        "passed",
        "final",
        20,
    )
    assert (found["n_used"], found["wins"]) == (wanted.n_used, wanted.n_used)
    assert found["p_final"] == wanted.p_final
    assert (found["ci_low"], found["ci_method"]) == (wanted.ci_low, "tango")


@pytest.mark.parametrize(
    ("scores", "options", "exit_code", "wanted"),
    [
        (
            [(1, 0)] * 20,
            (),
            3,
            {"verdict": "failed", "n_used": 20, "points_to": None},
        ),
        (
            [(1, 0), (0, 1)] * 10,
            (),
            4,
            {"verdict": "inconclusive", "how": "final"},
        ),
        (
            [(1, 1)] * 10,
            ("--n-max", "40"),
            4,
            {
                "verdict": "running",
                "how": None,
                "n": 40,
            },
        ),
    ],
    ids=["a-loser", "a-draw", "fewer-than-planned"],
)
def test_each_other_outcome_has_its_exit_code(
    decide: Decide,
    scores: list[tuple[object, object]],
    options: tuple[str, ...],
    exit_code: int,
    wanted: dict[str, object],
) -> None:
    result = decide(rows(scores), *options, "--json")

    assert result.exit_code == exit_code
    assert answer(result).items() >= wanted.items()


def test_the_claim_margin_and_alpha_are_the_gates(decide: Decide) -> None:
    alike = rows([(1, 1)] * 120)
    options = ("--claim", "non_inferior", "--n-max", "200", "--json")
    assert decide(alike, *options).exit_code == 0
    assert decide(alike, *options, "--alpha", "0.01").exit_code == 4
    assert decide(alike, *options, "--margin", "0.03").exit_code == 4


def test_epochs_are_averaged_and_missing_scores_are_bounds(decide: Decide) -> None:
    text = (
        "epoch,item,incumbent,candidate\n"
        "1,q1,1,1\n2,q1,0,\n3,q1,,1\n"
        "3,q2,0.5,.5\n1,q2,+5e-1,0.25\n2,q2,0.5,.75\n"
        "1,q3,,\n2,q3,,\n3,q3,,\n"
    )
    found = answer(decide(text, "--n-max", "10", "--json"))
    assert found["n_used"] == 3
    assert (found["measured"], found["delta"]) == (1, 0.0)
    assert (found["bound_low"], found["bound_high"]) == pytest.approx((-1 / 3, 5 / 9))
    assert (
        found["wins"],
        found["ties"],
        found["losses"],
    ) == (0, 1, 0)
    assert "4 of the incumbent's (4 × no score) and 4 of the candidate's" in found["reason"]


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "exit_code"),
    [
        pytest.param(["", *"0" * 39], "1" * 40, "passed", 0, id="one-lost-and-better"),
        pytest.param("1" * 40, ["", *"0" * 39], "failed", 3, id="one-lost-and-worse"),
        pytest.param(
            [""] * 9 + ["0"] * 31,
            "1" * 40,
            "passed",
            0,
            id="a-broken-incumbent",
        ),
        pytest.param(
            "1" * 40,
            [""] * 40,
            "not_measured",
            1,
            id="nothing-of-the-candidate",
        ),
        pytest.param(
            [""] * 40,
            [""] * 40,
            "not_measured",
            1,
            id="a-log-against-itself",
        ),
        pytest.param(["", *"10" * 20], ["", *"10" * 20], "inconclusive", 4, id="alike"),
    ],
)
def test_no_missing_score_decides(
    decide: Decide,
    ours: Sequence[str],
    theirs: Sequence[str],
    verdict: str,
    exit_code: int,
) -> None:
    rows = (f"q{n},{a},{b}\n" for n, (a, b) in enumerate(zip(ours, theirs, strict=True)))
    result = decide(HEAD + "".join(rows), "--json")

    assert (answer(result)["verdict"], result.exit_code) == (
        verdict,
        exit_code,
    )
    assert ("next" in answer(result)) == (verdict == "not_measured")


def test_the_rows_of_an_epoch_may_stand_in_any_order(decide: Decide) -> None:
    ordered = "epoch," + HEAD + "".join(f"1,q{n},{n % 2},1\n" for n in range(6))
    later = "".join(f"2,q{n},{n % 2},1\n" for n in reversed(range(6)))
    both = answer(decide(ordered + later, "--json"))
    first = answer(decide(ordered, "--json"))
    assert both["p_final"] == first["p_final"]


def test_marks_line_ends_quotes_blank_lines_and_other_columns_do_not_matter(
    decide: Decide,
) -> None:
    plain = decide(
        rows(
            [
                (0, 1),
                (1, 1),
                (0.5, 0),
            ]
        ),
        "--json",
    )
    dressed = (
        b"\xef\xbb\xbfNote, Candidate ,Item,INCUMBENT\r\n"
        b'"a, b",1,q0,0\r\n\r\n,1.0,q1,1\r\n"two\r\nlines",-0.0,"q2", 0.5 \r\n'
    )
    assert decide(dressed, "--json").stdout == plain.stdout


def test_without_json_a_person_can_read_it(decide: Decide) -> None:
    result = decide(rows([(0, 1)] * 20))
    assert "verdict          passed" in result.stdout
    assert "The candidate is better" in result.stdout
    assert "ci_low           –" in decide(rows([(0, 1)])).stdout


@pytest.mark.parametrize(
    "content",
    [
        "item;incumbent;candidate\nq;0;1\n",
        "item\tincumbent\tcandidate\nq\t0\t1\n".encode("utf-16"),
        f"item,incumbent,candidate,note\nq,0,1,{'x' * 200_000}\n",
    ],
)
def test_other_separators_encodings_and_long_cells_are_read(
    decide: Decide, content: str | bytes
) -> None:
    assert "wins             1" in decide(content).stdout


@pytest.mark.parametrize(
    ("content", "options", "line", "message"),
    [
        ("", (), 1, "the file is empty"),
        (HEAD, (), 2, "no items"),
        (
            "item,incumbent,candidte\nq,0,1\n",
            (),
            1,
            "did you mean 'candidte'?",
        ),
        ("item,candidate\nq,1\n", (), 1, "column 'incumbent' is missing"),
        (
            "item,item,incumbent,candidate\nq,q,0,1\n",
            (),
            1,
            "column 'item' occurs twice",
        ),
        (HEAD + "q1,0,1\nq2,nan,1\n", (), 3, "incumbent is 'nan'"),
        (HEAD + "q1,inf,1\n", (), 2, "incumbent is 'inf'"),
        (HEAD + "q1,0_1,1\n", (), 2, "incumbent is '0_1'"),
        (HEAD + "q1,0,٣\n", (), 2, "candidate is"),
        (HEAD + "q1,0,1e400\n", (), 2, "scores are from 0 to 1"),
        (HEAD + "q1,-0.1,1\n", (), 2, "scores are from 0 to 1"),
        (HEAD + "q1,0,1.0000001\n", (), 2, "scores are from 0 to 1"),
        (HEAD + "q1,0\n", (), 2, "2 fields, but the header has 3"),
        (HEAD + "q1,0,1,1\n", (), 2, "4 fields, but the header has 3"),
        (HEAD + ",0,1\n", (), 2, "item is empty"),
        (
            HEAD + "q1,0,1\n\nq1,0,1\n",
            (),
            4,
            "already in line 2; several epochs",
        ),
        (
            "epoch," + HEAD + "1,q,0,1\n01,q,0,1\n",
            (),
            3,
            "epoch 01 is already in line",
        ),
        ("epoch," + HEAD + "a,q,0,1\n", (), 2, "epoch is 'a'"),
        (
            "epoch," + HEAD + "1,q,0,1\n2,q,0,1\n1,r,0,1\n",
            (),
            4,
            "item 'r' has epochs 1, the first item has 1, 2",
        ),
        (
            HEAD + "q1,0,1\nq2,0,1\n",
            ("--n-max", "1"),
            3,
            "exceeds the planned 1",
        ),
        (HEAD + 'q1,"0,1\n', (), 2, "not CSV"),
        (HEAD + "q1,0,\0\n", (), 2, "candidate is"),
        (HEAD.encode() + b"q1,0,1\nq\xff,0,1\n", (), 3, "not UTF-8"),
    ],
)
def test_bad_input_ends_with_2_and_its_place(
    decide: Decide,
    content: str | bytes,
    options: tuple[str, ...],
    line: int,
    message: str,
) -> None:
    result = decide(content, "--json", *options)

    assert result.exit_code == 2
    assert answer(result)["error"]["exit_code"] == 2
    assert f"pairs.csv:{line}: " in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--n-max", "0"),
        ("--margin", "nan"),
        ("--alpha", "1"),
        ("--claim", "better"),
        ("--unknown",),
    ],
)
def test_a_bad_option_ends_with_2_and_its_name(
    decide: Decide, options: tuple[str, ...]
) -> None:
    result = decide(rows([(0, 1)]), *options)
    assert result.exit_code == 2
    assert options[0] in result.stderr


def test_means_that_differ_by_rounding_alone_are_a_tie(decide: Decide) -> None:
    text = "epoch," + HEAD + "1,q,0.1,0.15\n2,q,0.2,0.15\n1,r,1,1\n2,r,1,1\n"
    found = answer(decide(text, "--json"))
    assert (
        found["wins"],
        found["ties"],
        found["losses"],
    ) == (0, 2, 0)
    assert (found["delta"], found["ci_method"]) == (0.0, "tango")


def test_a_difference_that_rounds_to_nothing_has_no_sign(decide: Decide) -> None:
    found = answer(decide(rows([(0.5001, 0.5), *[(0, 0)] * 9]), "--json"))
    assert found["delta"] < 0
    assert ": 0.0 points" in found["reason"]


def test_a_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_BYTES", 2**20)
    result = CliRunner().invoke(program, ["gate", "decide", "/dev/zero"])
    assert result.exit_code == 2
    assert "/dev/zero: larger than 1 MiB" in result.stderr


def test_what_is_no_file_ends_with_2_and_its_name(tmp_path: Path) -> None:
    for place in (tmp_path / "none.csv", tmp_path):
        result = CliRunner().invoke(program, ["gate", "decide", str(place)])
        assert result.exit_code == 2
        assert f"{place}: cannot be read" in result.stderr


def grouped(columns: str, lines: Sequence[tuple[object, ...]]) -> str:
    head = HEAD.strip() + f",{columns}\n"
    return head + "".join(
        f"q{n}," + ",".join(map(str, line)) + "\n" for n, line in enumerate(lines)
    )


@pytest.mark.req("F2", "A7")
def test_a_file_of_clusters_is_decided_as_a_proposal_is(decide: Decide) -> None:
    sizes = [1 + n % 4 for n in range(80)]
    scores = [(n % 2, n % 5 != 0, n) for n, size in enumerate(sizes) for _ in range(size)]
    text = grouped(
        "document",
        [(ours, int(theirs), f"d{n}") for ours, theirs, n in scores],
    )
    verdict = ask(
        [replace(clustered(sizes), looks=Looks.WHOLE)],
        {
            "math": sides(
                [float(a) for a, _, _ in scores],
                [float(b) for _, b, _ in scores],
            )
        },
    )
    assert verdict is not None
    report = verdict.suites[0]

    found = answer(decide(text, "--cluster", "document", "--json"))

    assert found["verdict"] == report.outcome
    assert (found["how"], found["n_used"]) == (report.how, report.n_used)
    for name in (
        "delta",
        "ci_low",
        "ci_high",
        "log_e_bad",
        "p_final",
    ):
        assert found[name] == pytest.approx(getattr(report, name), rel=1e-12)
    fewer = answer(decide(text, "--cluster", "document", "--n-max", "200", "--json"))
    assert fewer["n"] == 200


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([(0, 1, "a")], ("--cluster", "topic"), "column 'topic' is missing"),
        ([(0, 1, "")], ("--cluster", "document"), "document is empty"),
        (
            [(0, 1, "a")],
            ("--cluster", "item"),
            "column 'item' cannot name a cluster",
        ),
        (
            [(0, 1, "a"), (0, 1, "b")],
            ("--cluster", "document", "--n-max", "1"),
            "2 clusters are more than the planned 1",
        ),
        (
            [(0, 1, "a")] * 59,
            ("--slice", "document"),
            "no slice of document has the 60",
        ),
        (
            [(0, 1, "a")] * 60,
            ("--slice", "document", "--n-max", "70"),
            "all planned 70",
        ),
        (
            [(0, 1, "<b>")] * 60,
            ("--slice", "document"),
            "'<b>' is not a slice name",
        ),
    ],
)
def test_groups_that_cannot_be_judged_end_with_2(
    decide: Decide,
    lines: Sequence[tuple[object, ...]],
    options: tuple[str, ...],
    message: str,
) -> None:
    result = decide(grouped("document", lines), *options, "--json")

    assert (result.exit_code, answer(result)["error"]["exit_code"]) == (2, 2)
    assert message in result.stderr


def test_an_item_is_in_one_cluster(decide: Decide) -> None:
    text = "epoch,item,incumbent,candidate,document\n1,q,0,1,a\n2,q,0,1,b\n"

    assert (
        "item 'q' is in b here, but in an earlier row in a"
        in decide(text, "--cluster", "document").stderr
    )
