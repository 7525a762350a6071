import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.suite import load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from harness.frame.plain_data import from_plain
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.pairs import PairedItem
from harness.gate.offline.slices import (
    SLICE_ALPHA,
    judge_slices,
    look_levels,
)
from harness.gate.offline.verdicts import (
    claims_from_json,
    decide_verdict,
    read_passed_slices,
    replay_verdict,
)
from harness.gate.suite_plan import (
    MIN_SLICE_UNITS,
    ItemGroups,
    Slice,
    SliceTerms,
    SuitePlan,
    guard_slices,
)
from harness.gate.verdict import (
    Failed,
    HarnessMismatch,
    Inconclusive,
    Passed,
    ScorePair,
)
from tests.unit.test_gate_verdicts import (
    BETTER,
    NOW,
    ask,
    named,
    plan,
    sides,
    weighted,
)

pytestmark = pytest.mark.req("F2", "A7")


TERMS = SliceTerms("team = billing", "support", "p_1", "tools", ("x-team: a",), slices=2)


@pytest.mark.parametrize(("passed", "outcome"), [((), Inconclusive), (("p_2",), Passed)])
def test_a_slice_has_a_higher_level_once_another_slice_has_passed(
    passed: tuple[str, ...], outcome: type[Passed | Inconclusive]
) -> None:
    """Sixteen wins and six losses of 200 pass at .05, and not at .025."""
    terms = replace(plan(), alpha=0.025, slice_terms=TERMS)
    differs = [*[(0.0, 1.0)] * 16, *[(1.0, 0.0)] * 6, *[(1.0, 1.0)] * 178]
    Random(5).shuffle(differs)
    ours, theirs = ([pair[arm] for pair in differs] for arm in (0, 1))

    verdict = decide_verdict(
        "support-billing",
        "t_old",
        "t_new",
        [terms],
        {"math": sides(ours, theirs)},
        NOW,
        3600.0,
        passed_slices=passed,
    )

    assert isinstance(verdict, outcome)
    [claim] = claims_from_json(verdict.inputs)
    assert claim.plan == terms
    assert read_passed_slices(verdict.inputs) == passed
    assert from_plain(SuitePlan, json.loads(json.dumps(terms.as_json()))) == terms
    assert replay_verdict(verdict).id == verdict.id


def clustered(sizes: Sequence[int], **changes: object) -> SuitePlan:
    made = replace(
        plan(n_max=len(sizes)),
        cluster="document",
        cluster_sizes=tuple(sizes),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def repeated(sizes: Sequence[int], scores: Sequence[float]) -> list[float]:
    return [score for size, score in zip(sizes, scores, strict=True) for _ in range(size)]


def test_ten_copies_of_an_item_are_no_ten_items() -> None:
    """Eleven of 16 documents won: ten questions on each show no more than one."""
    won = [1.0, 0.0, 1.0] + [1.0, 0.0, 1.0] * 4 + [1.0]
    lost = [1.0 - score for score in won]
    sizes = [10] * 16
    alike = sides(repeated(sizes, lost), repeated(sizes, won))

    by_items = ask([plan(n_max=160)], {"math": alike})
    by_clusters = ask([clustered(sizes)], {"math": alike})

    assert isinstance(by_items, Passed)
    assert isinstance(by_clusters, Inconclusive)
    report = by_clusters.suites[0]
    assert (report.n_used, report.n_max, report.wins, report.losses) == (16, 16, 11, 5)
    assert (report.figures.cluster, report.figures.items) == (
        "document",
        160,
    )
    assert "16 of 16 clusters did not show" in by_clusters.reason


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcde"), min_size=1),
    st.integers(0, 99),
)
def test_the_items_of_a_cluster_stand_together(clusters: dict[str, str], seed: int) -> None:
    groups = ItemGroups(tuple(clusters), clusters, "document")

    order = groups.order(seed)
    sizes = groups.cluster_sizes(seed)

    assert sorted(order) == sorted(clusters)
    assert sum(sizes) == len(order)
    begin = 0
    for size in sizes:
        assert len({clusters[item] for item in order[begin : begin + size]}) == 1
        begin += size
    assert len(sizes) == groups.units == len(set(clusters.values()))


def write_documents(
    folder: Path,
    documents: Sequence[object],
    cluster: str = "document",
) -> SuiteSettings:
    file = folder / "asked.jsonl"
    lines = [
        {
            "id": f"q{n}",
            "input": f"{n}?",
            "target": "yes",
        }
        | ({"metadata": {"document": name}} if name is not None else {})
        for n, name in enumerate(documents)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return SuiteSettings("asked", path=file, cluster=cluster)


def test_a_suite_names_the_field_and_its_pin_says_so(tmp_path: Path) -> None:
    settings = write_documents(tmp_path, ["a", 7, "a", "7"])
    suites = ConfiguredSuites({"asked": settings})

    groups = suites.groups("asked")

    assert groups.clusters == {
        "q0": "a",
        "q1": "7",
        "q2": "a",
        "q3": "7",
    }
    assert groups.units == 2
    plain = load_suite(replace(settings, cluster=""))
    assert plain.pin.digest != suites.pin("asked").digest
    assert plain.groups == ItemGroups(("q0", "q1", "q2", "q3"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        1.5,
        float("nan"),
        True,
        ["a"],
        {"a": 1},
        "x" * 201,
        "a\nb",
        "a\u202eb",
    ],
    ids=repr,
)
def test_an_item_without_a_name_of_its_cluster_is_named_with_its_line(
    tmp_path: Path, value: object
) -> None:
    settings = write_documents(tmp_path, ["a", value])

    with pytest.raises(InputError, match=r"asked\.jsonl:2: .*"):
        load_suite(settings)


def test_items_that_nearly_repeat_others_are_pointed_out(tmp_path: Path) -> None:
    settings = write_documents(tmp_path, ["a"] * 4, cluster="")
    asked = "Which of our shops sells the blue lamp that stands in the window today"
    lines = [{"input": f"{asked} {n}", "target": "yes"} for n in range(4)]
    assert settings.path is not None
    settings.path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    suites = ConfiguredSuites({"asked": settings})

    told = suites.describe_dependence("asked")

    assert told.startswith("4 items form 1 clusters of similar texts")
    other = write_documents(tmp_path, ["a", "b"])
    assert ConfiguredSuites({"asked": other}).describe_dependence("asked") == ""


N = 300
DANISH = tuple(range(0, N, 3))  # 100 items
OTHERS = tuple(n for n in range(N) if n % 3)


def sliced(n_max: int = N, **changes: object) -> SuitePlan:
    slices = (
        Slice("language", "en", OTHERS),
        Slice("language", "da", DANISH),
    )
    return replace(plan(n_max=n_max), slices=slices, **changes)  # type: ignore[arg-type]


def losing_danish() -> tuple[list[float], list[float]]:
    ours = [float(n % 3 == 0) if n % 2 else 0.0 for n in range(N)]
    theirs = [0.0 if n % 3 == 0 else float(n % 2) for n in range(N)]
    return ours, theirs


def test_a_slice_that_is_shown_worse_fails_whatever_the_mean_says() -> None:
    found = sides(*losing_danish())

    assert isinstance(ask([plan(n_max=N)], {"math": found}), Passed)
    failed = ask([sliced()], {"math": found})

    assert isinstance(failed, Failed)
    report = failed.suites[0]
    (danish,) = report.figures.worse_slices
    # Its 60th item is the 178th of the order: that is the first look.
    assert (danish.name, danish.n_used, danish.n_max) == (
        "language = da",
        60,
        100,
    )
    assert danish.delta == pytest.approx(-0.5)
    assert (report.n_used <= 178, report.delta > 0) == (True, True)
    assert "worse in a slice, at any mean: language = da: −50.0 points" in failed.reason


def test_the_looks_at_the_slices_share_the_error_that_slices_may_have() -> None:
    assert look_levels(sliced()) == [
        (200, SLICE_ALPHA / 4),
        (100, SLICE_ALPHA / 4),
    ]
    whole = (Slice("language", "en", tuple(range(MIN_SLICE_UNITS))),)
    assert look_levels(replace(sliced(), slices=whole)) == [(MIN_SLICE_UNITS, SLICE_ALPHA)]


def test_a_slice_without_a_loss_changes_nothing() -> None:
    mixed = sides([0.0, 1.0, 1.0] * 100, [1.0, 0.0, 1.0] * 100)

    with_slices = ask([sliced()], {"math": mixed})
    without = ask([plan(n_max=N)], {"math": mixed})

    assert with_slices is not None
    assert without is not None
    assert isinstance(with_slices, Failed)  # all others lose every second item
    assert isinstance(without, Inconclusive)
    tie = sides([1.0] * N, [1.0] * N)
    assert isinstance(ask([sliced()], {"math": tie}), Inconclusive)


def test_a_slice_lost_by_form_is_no_loss_of_substance() -> None:
    ours = [float(n % 3 == 0 or n % 2 == 0) for n in range(N)]
    theirs = [0.0 if n % 3 == 0 and n % 2 else 1.0 for n in range(N)]

    found = ask([sliced()], {"math": sides(ours, theirs, [1.0] * N)})

    assert isinstance(found, HarnessMismatch)
    assert "loses a slice by form, not by substance: language = da" in found.reason
    assert "code_fence" in found.reason
    # Not shown worse with lenient scores either, but beyond the margin: no loss of form alone.
    lenient = [0.0 if n % 36 == 3 and theirs[n] == 0.0 else 1.0 for n in range(N)]
    assert isinstance(ask([sliced()], {"math": sides(ours, theirs, lenient)}), Failed)
    # A form loss of the whole suite, which ends at its 110th item, comes before a slice's.
    late = replace(plan(), slices=(Slice("language", "da", tuple(range(50, 110))),))
    whole = ask([late], {"math": sides([1.0] * 200, [0.0] * 200, [1.0] * 200)})
    assert isinstance(whole, HarnessMismatch)
    assert "loses a slice" not in whole.reason


def test_a_promotion_comes_with_the_first_look_at_the_last_slice() -> None:
    ours, theirs = BETTER
    whole, part = weighted(1.0, 1.0)
    mean = [whole, replace(part, slices=sliced().slices)]
    for items, passes in ((177, False), (178, True)):
        answers = ours[:items], theirs[:items]
        assert isinstance(ask([sliced()], {"math": answers}), Passed) is passes
        assert isinstance(ask(mean, named(answers, answers)), Passed) is passes


def test_values_with_too_few_items_are_no_slices() -> None:
    items = tuple(f"q{n}" for n in range(1000))
    each = ItemGroups(items, slices={"user": {item: item for item in items}})
    halves = ItemGroups(items, slices={"half": {item: item[-1] for item in items}})

    assert each.guarded_slices(7, 1000) == ()
    assert len(halves.guarded_slices(7, 1000)) == 10
    assert halves.guarded_slices(7, 100) == ()
    found = halves.guarded_slices(7, 1000)[0]
    order = halves.order(7)
    assert {order[position][-1] for position in found.positions} == {found.value}


def write_suite(folder: Path, languages: Sequence[object]) -> SuiteSettings:
    file = folder / "asked.jsonl"
    lines = [
        {
            "id": f"q{n}",
            "input": f"{n}?",
            "target": "yes",
            "metadata": {"language": value},
        }
        for n, value in enumerate(languages)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return SuiteSettings("asked", path=file, slices=("language",))


def test_slice_fields_are_part_of_the_pin_and_of_every_item(tmp_path: Path) -> None:
    settings = write_suite(tmp_path, ["da", "en"] * 60)
    suites = ConfiguredSuites({"asked": settings})
    plain = ConfiguredSuites({"asked": replace(settings, slices=())})

    assert suites.pin("asked").digest != plain.pin("asked").digest
    names = {s.name for s in suites.groups("asked").guarded_slices(1, 120)}
    assert names == {"language = da", "language = en"}
    with pytest.raises(InputError, match=r"asked\.jsonl:2: field 'metadata\.language'"):
        ConfiguredSuites({"asked": write_suite(tmp_path, ["da", ["en"]])}).groups("asked")


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        float("nan"),
        True,
        {},
        "<b>",
        "a|b",
        "[a](b)",
        "`a`",
        "a" * 65,
    ],
    ids=repr,
)
def test_a_value_that_could_be_markup_is_refused_with_its_line(
    tmp_path: Path, value: object
) -> None:
    with pytest.raises(InputError, match=r"asked\.jsonl:2: .*"):
        ConfiguredSuites({"asked": write_suite(tmp_path, ["da", value])}).groups("asked")


def loss_p(d: Sequence[float]) -> float:
    return float(final_p([-x for x in d], 0.0))


def items(d: Sequence[float], lenient: Sequence[float] | None = None) -> list[PairedItem]:
    return [
        PairedItem(ScorePair(f"q{n}", 0.5, 0.5 + x, 0.5, 0.5 + y))
        for n, (x, y) in enumerate(zip(d, lenient or d, strict=True))
    ]


def looked_at(n_max: int, *slices: Slice) -> SuitePlan:
    return replace(plan(n_max=n_max), slices=slices)


EVEN = Slice("kind", "even", tuple(range(0, 240, 2)))
ODD = Slice("kind", "odd", tuple(range(1, 240, 2)))
TWO = looked_at(240, EVEN, ODD)


def losing(
    name: Slice,
    n: int = 240,
    size: float = 0.3,
    seed: int = 5,
) -> list[float]:
    rng = Random(seed)
    hit = set(name.positions)
    return [round(rng.uniform(-0.2, 0.2) - size * (p in hit), 3) for p in range(n)]


def test_each_slice_is_looked_at_when_its_60th_and_its_last_unit_are_in() -> None:
    """The 60th even item is the 119th of the order, the 60th odd one the 120th."""
    d = losing(ODD, size=0.3)
    found = {n: judge_slices(TWO, items(d[:n])) for n in (118, 119, 120, 239, 240)}

    assert [s.p is None for s in found[118].figures] == [True, True]
    assert [s.p is None for s in found[119].figures] == [False, True]
    assert found[118].worse_at is found[119].worse_at is None
    for n in (120, 239, 240):
        assert found[n].worse_at == 120
        assert [s.worse for s in found[n].figures] == [False, True]
    odd = d[1:120:2]
    half = float(stats.t.ppf(0.975, 59)) * float(stats.sem(odd))
    figures = found[240].figures[1]
    assert (figures.name, figures.n_used, figures.n_max) == (
        "kind = odd",
        60,
        120,
    )
    expected = (
        fmean(odd),
        fmean(odd) - half,
        fmean(odd) + half,
        2 * loss_p(odd),
    )
    measured = (figures.delta, figures.ci_low, figures.ci_high, figures.p)
    assert measured == pytest.approx(expected)
    assert found[240].worse == (found[240].figures[1],)


def test_the_p_value_is_the_smallest_of_the_looks_times_their_number() -> None:
    rng = Random(12)
    for _ in range(6):
        d = [round(rng.uniform(-0.3, 0.28), 3) for _ in range(240)]
        even = d[::2]
        found = judge_slices(TWO, items(d))
        if found.worse_at is not None:
            continue
        looks = [loss_p(even[:60]), loss_p(even)]
        assert found.figures[0].p == pytest.approx(min(1.0, 2 * min(looks)))
        assert found.figures[0].n_used == 120
        first = judge_slices(TWO, items(d[:200])).figures[0]
        assert first.p == pytest.approx(min(1.0, 2 * looks[0]))
        assert first.n_used == 100
        assert first.delta == pytest.approx(fmean(even[:100]))


def test_a_slice_is_guarded_by_its_units_among_those_that_may_be_asked() -> None:
    alike = {"topic": ["a"] * 120}

    (asked,) = guard_slices(
        alike,
        (),
        60,
    )
    assert asked.positions == tuple(range(60))
    assert guard_slices(alike, (), 59) == ()
    # Of 60 clusters of two, all; of 59 nothing is shown.
    (both,) = guard_slices(
        alike,
        (2,) * 60,
        60,
    )
    assert len(both.positions) == 120
    assert guard_slices(alike, (2,) * 60, 59) == ()
