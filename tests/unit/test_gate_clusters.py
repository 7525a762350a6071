import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.suite import load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from harness.gate.item_groups import ItemGroups
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Inconclusive, Passed
from tests.unit.test_gate_verdicts import ask, plan, sides

pytestmark = pytest.mark.req("F2", "A7")


def clustered(sizes: Sequence[int], **changes: object) -> SuitePlan:
    made = replace(plan(n_max=len(sizes)), cluster="document", cluster_sizes=tuple(sizes))
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
    assert (report.figures.cluster, report.figures.items) == ("document", 160)
    assert "16 of 16 clusters did not show" in by_clusters.reason


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcde"), min_size=1),
    st.integers(0, 99),
)
def test_the_items_of_a_cluster_stand_together(clusters: dict[str, str], seed: int) -> None:
    groups = ItemGroups(tuple(clusters), clusters, "document")

    order, sizes = groups.order(seed), groups.cluster_sizes(seed)

    assert sorted(order) == sorted(clusters)
    assert sum(sizes) == len(order)
    begin = 0
    for size in sizes:
        assert len({clusters[item] for item in order[begin : begin + size]}) == 1
        begin += size
    assert len(sizes) == groups.units == len(set(clusters.values()))


def write_suite(
    folder: Path, documents: Sequence[object], cluster: str = "document"
) -> SuiteSettings:
    file = folder / "asked.jsonl"
    lines = [
        {"id": f"q{n}", "input": f"{n}?", "target": "yes"}
        | ({"metadata": {"document": name}} if name is not None else {})
        for n, name in enumerate(documents)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return SuiteSettings("asked", path=file, cluster=cluster)


def test_a_suite_names_the_field_and_its_pin_says_so(tmp_path: Path) -> None:
    settings = write_suite(tmp_path, ["a", 7, "a", "7"])
    suites = ConfiguredSuites({"asked": settings})

    groups = suites.groups("asked")

    assert groups.clusters == {"q0": "a", "q1": "7", "q2": "a", "q3": "7"}
    assert groups.units == 2
    plain = load_suite(replace(settings, cluster=""))
    assert plain.pin.digest != suites.pin("asked").digest
    assert plain.groups == ItemGroups(("q0", "q1", "q2", "q3"))


@pytest.mark.parametrize(
    "value",
    [None, "", " ", 1.5, float("nan"), True, ["a"], {"a": 1}, "x" * 201, "a\nb", "a\u202eb"],
    ids=repr,
)
def test_an_item_without_a_name_of_its_cluster_is_named_with_its_line(
    tmp_path: Path, value: object
) -> None:
    settings = write_suite(tmp_path, ["a", value])

    with pytest.raises(InputError, match=r"asked\.jsonl:2: .*"):
        load_suite(settings)


def test_items_that_nearly_repeat_others_are_pointed_out(tmp_path: Path) -> None:
    settings = write_suite(tmp_path, ["a"] * 4, cluster="")
    asked = "Which of our shops sells the blue lamp that stands in the window today"
    lines = [{"input": f"{asked} {n}", "target": "yes"} for n in range(4)]
    assert settings.path is not None
    settings.path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    suites = ConfiguredSuites({"asked": settings})

    likely = suites.likely_clusters("asked")

    assert likely.startswith("3 of 4 items nearly repeat others, such as asked-0002 and asked-")
    assert "name a `cluster` field" in likely
    other = write_suite(tmp_path, ["a", "b"])
    assert ConfiguredSuites({"asked": other}).likely_clusters("asked") == ""
