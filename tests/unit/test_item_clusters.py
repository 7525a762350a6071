import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.item_clusters import CALLER, CONVERSATION, cluster_items
from evals.suites.suite import load_suite
from harness.evals.settings import SuiteSettings
from harness.frame.errors import InputError
from harness.gate.suite_plan import (
    FOUND_CLUSTERS,
    Claim,
    ItemGroups,
    SuitePlan,
    SuiteRole,
    design_effect,
    overlap_share,
)
from harness.routing.capture import MOST_OF_A_CALLER, draw_per_caller
from harness.routing.similar_texts import find_alike

pytestmark = pytest.mark.req("F2", "F4")

SHARED = Path(os.environ.get("SWAPPROOF_SHARED", "")) / "evaldata"
SHOTS = 5
WORDS = [
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "mesa",
]


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (SHARED / name).read_text("utf-8").splitlines()]


def few_shot() -> list[str]:
    shots = read("gsm8k_fewshot.jsonl")[:SHOTS]
    before = "\n\n".join(f"Q: {shot['question']}\nA: {shot['answer']}" for shot in shots)
    return [f"{before}\n\nQ: {one['question']}\nA:" for one in read("gsm8k_test.jsonl")[:500]]


def prompts(name: str) -> Callable[[], list[str]]:
    return lambda: [one["prompt"] for one in read(name)]


def clustered(
    texts: Sequence[str], owners: Mapping[str, Sequence[str]] | None = None
) -> ItemGroups:
    items = tuple(f"q{number}" for number in range(len(texts)))
    named = dict(zip(items, texts, strict=True))
    return cluster_items(items, named, owners or {}, ItemGroups(items))


def sizes(groups: ItemGroups) -> list[int]:
    return sorted(groups.cluster_sizes(1))


def sentence(number: int) -> str:
    """Returns a text of 20 words that shares no run of three words with another one."""
    return " ".join(
        f"{WORDS[(number * 7 + place) % len(WORDS)]}{number}" for place in range(20)
    )


def suite(folder: Path, *items: Mapping[str, object], scorer: str = "exact") -> SuiteSettings:
    path = folder / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    return SuiteSettings("asked", path=path, scorer=scorer)


@pytest.mark.skipif(not SHARED.is_dir(), reason="SWAPPROOF_SHARED has no public data sets")
@pytest.mark.parametrize(
    "texts",
    [prompts("humaneval.jsonl"), prompts("ifeval.jsonl"), few_shot],
    ids=["HumanEval", "IFEval", "GSM8K with examples"],
)
def test_public_suites_keep_their_items_single(texts: Callable[[], list[str]]) -> None:
    asked = texts()

    paired = sum(map(len, find_alike({str(n): text for n, text in enumerate(asked)})))

    assert paired <= 0.05 * len(asked)


def test_a_template_does_not_make_its_items_alike() -> None:
    template = "Translate this word into French, and answer with one word in lower case: {}."
    texts = [template.format(f"{WORDS[n % len(WORDS)]}{n}") for n in range(200)]

    assert clustered(texts).units >= 0.8 * len(texts)


@pytest.mark.parametrize("size", [2, 3, 5, 10])
def test_planted_near_duplicates_are_one_cluster(size: int) -> None:
    texts = [f"{sentence(n // size)} please {n}" for n in range(40 * size)]

    groups = clustered(texts)

    assert groups.cluster_field == FOUND_CLUSTERS
    assert sizes(groups) == [size] * 40


def test_case_marks_and_punctuation_do_not_hide_a_near_duplicate() -> None:
    texts = [f"{sentence(n)} café" for n in range(20)]

    groups = clustered([*texts, *(f"{text.upper()}!" for text in texts)])

    assert sizes(groups) == [2] * 20


@pytest.mark.parametrize(
    "hidden",
    [
        lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        lambda text: text.replace("a", "a\u200b"),
        lambda text: text.replace("e", "e\u00ad"),
        lambda text: text.replace(" ", "\u3000"),
        lambda text: f"“{text}”",
    ],
    ids=["wide letters", "zero-width spaces", "soft hyphens", "wide spaces", "quotes"],
)
def test_characters_that_look_the_same_do_not_hide_a_repeat(
    hidden: Callable[[str], str],
) -> None:
    texts = [sentence(n) for n in range(20)]

    assert sizes(clustered([*texts, *map(hidden, texts)])) == [2] * 20


def test_near_duplicates_are_found_in_a_script_without_spaces() -> None:
    texts = [
        chr(0x4E00 + 40 * n) * 3 + "".join(chr(0x4E00 + 40 * n + k) for k in range(30))
        for n in range(20)
    ]

    assert sizes(clustered([*texts, *(f"{text}吗" for text in texts)])) == [2] * 20


def test_items_that_continue_a_conversation_are_one_cluster_with_it(tmp_path: Path) -> None:
    def turns(n: int, last: int) -> dict[str, object]:
        said = [
            {"role": "user" if k % 2 == 0 else "assistant", "content": sentence(100 * n + k)}
            for k in range(last)
        ]
        system = {"role": "system", "content": "Be brief."}
        return {
            "input": f"{n} {last}",
            "target": "x",
            "metadata": {"messages": [system, *said]},
        }

    items = [turns(n, last) for n in range(10) for last in (1, 3, 9)]

    assert sizes(load_suite(suite(tmp_path, *items)).groups) == [3] * 10


def test_one_question_about_several_documents_joins_nothing(tmp_path: Path) -> None:
    items = [
        {
            "input": "Summarize it.",
            "target": "x",
            "metadata": {
                "messages": [
                    {"role": "system", "content": sentence(n)},
                    {"role": "user", "content": "Summarize it."},
                ]
            },
        }
        for n in range(8)
    ]

    assert load_suite(suite(tmp_path, *items)).groups.units == 8


def test_the_same_items_are_found_in_a_suite_of_conversations(tmp_path: Path) -> None:
    plain = suite(tmp_path, *({"input": sentence(n), "target": "x"} for n in range(20)))
    first = load_suite(plain).pin
    chats = [
        {
            "input": "asked",
            "target": "x",
            "metadata": {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": sentence(n).upper()},
                ]
            },
        }
        for n in range(18, 38)
    ]

    second = load_suite(suite(tmp_path, *chats)).pin

    assert overlap_share(first.texts, second.texts) == 0.1


def test_a_chain_of_similar_texts_does_not_join_its_two_ends() -> None:
    words = [f"word{n}" for n in range(40)]
    texts = {str(at): " ".join(words[at : at + 20]) for at in (0, 4, 8)}

    (cluster,) = find_alike(texts)

    assert list(cluster) == ["0", "4"]


def test_items_of_one_caller_are_one_cluster() -> None:
    texts = [sentence(n) for n in range(60)]
    owners = {f"q{n}": (f"{CALLER}:{n // 2}",) for n in range(40)}

    assert sizes(clustered(texts, owners)) == [1] * 20 + [2] * 20


def test_an_opening_that_the_application_sends_each_time_joins_nothing() -> None:
    texts = [sentence(n) for n in range(60)]
    owners = {f"q{n}": (f"{CONVERSATION}:same",) for n in range(60)}

    assert clustered(texts, owners).units == 60
    assert not clustered(texts, owners).cluster_field


def test_a_few_near_duplicates_in_a_large_suite_leave_the_items_as_units() -> None:
    texts = [sentence(n) for n in range(199)]

    groups = clustered([*texts, f"{texts[0]} again"])

    assert (groups.units, groups.cluster_field) == (200, "")


def test_near_duplicates_join_declared_clusters() -> None:
    texts = {f"q{n}": sentence(n // 2) + f" {n}" for n in range(20)}
    items = tuple(texts)
    declared = ItemGroups(items, {item: item for item in items}, "page")

    groups = cluster_items(items, texts, {}, declared)

    assert groups.cluster_field == "page"
    assert sizes(groups) == [2] * 10


def test_equal_items_count_once(tmp_path: Path) -> None:
    settings = suite(
        tmp_path,
        {"input": "What is  the capital of France?", "target": "Paris"},
        {"input": "What is the capital of France? ", "target": "Paris"},
        {"input": "Cafe\u0301?", "target": "yes"},
        {"input": "Café?", "target": "yes"},
    )

    loaded = load_suite(settings)

    assert list(loaded.items) == ["asked-0001", "asked-0003"]
    assert loaded.repeats == {"asked-0002": "asked-0001", "asked-0004": "asked-0003"}
    assert loaded.dependence.startswith("2 items repeat the question and the target of another")


def test_equal_questions_with_two_targets_are_refused_with_both_lines(tmp_path: Path) -> None:
    settings = suite(
        tmp_path,
        {"input": "Who won?", "target": "Ann"},
        {"input": "Where?", "target": "Rome"},
        {"input": "Who  won?", "target": "Bob"},
    )

    with pytest.raises(InputError, match=r"jsonl:3: item 'asked-0003' .* in line 1, but has"):
        load_suite(settings)


def test_items_that_differ_in_a_rule_choices_or_indentation_are_not_equal(
    tmp_path: Path,
) -> None:
    code = "def f():\n{}return 1\nWhat does f return?"
    settings = suite(
        tmp_path,
        {"input": "Pick", "target": "a", "choices": ["a", "b"]},
        {"input": "Pick", "target": "b", "choices": ["b", "c"]},
        {"input": code.format("  "), "target": "1"},
        {"input": code.format(""), "target": "a syntax error"},
    )

    assert len(load_suite(settings).items) == 4


def test_a_large_cluster_is_pointed_out(tmp_path: Path) -> None:
    texts = [sentence(n) for n in range(50)] + [f"{sentence(0)} {n}" for n in range(8)]
    settings = suite(tmp_path, *({"input": text, "target": "x"} for text in texts))

    told = ConfiguredSuites({"asked": settings}).describe_dependence("asked")

    assert "58 items form 50 clusters of similar texts" in told
    assert "the cluster of asked-0001 has 9 items (15.5 %), more than 5 %" in told


@pytest.mark.parametrize(("size", "worth"), [(2, 154), (5, 91), (10, 54)])
def test_the_effective_number_of_items_is_kishs(size: int, worth: int) -> None:
    plan = SuitePlan(
        suite="asked",
        suite_digest="0" * 64,
        role=SuiteRole.PRIMARY,
        claim=Claim.SUPERIOR,
        margin=0.05,
        alpha=0.05,
        n_max=200 // size,
        epochs=1,
        order_seed=1,
        cluster="page",
        cluster_sizes=(size,) * (200 // size),
    )

    assert plan.effective_items(0.3) == worth
    assert design_effect([1] * 200, 0.3) == 1.0


@given(st.dictionaries(st.text(max_size=5), st.sampled_from(["", "ann", "bob"]), max_size=30))
def test_a_draw_takes_at_most_two_of_a_caller_and_drawing_again_changes_nothing(
    callers: dict[str, str],
) -> None:
    drawn = draw_per_caller(callers)

    again = draw_per_caller({id_: callers[id_] for id_ in drawn})
    assert again == drawn
    for caller in ("ann", "bob"):
        of_caller = sum(one == caller for one in callers.values())
        kept = sum(callers[id_] == caller for id_ in drawn)
        assert kept == min(of_caller, MOST_OF_A_CALLER)
    assert all(id_ in drawn for id_, caller in callers.items() if not caller)
