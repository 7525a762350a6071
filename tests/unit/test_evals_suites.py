import hashlib
import json
import re
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evals.scorers import SCORERS
from evals.suites.configured_suites import ConfiguredSuites
from evals.suites.items import Item
from evals.suites.suite import load_suite, render_prompt
from harness.app.configuration.configuration import load_settings
from harness.evals.ports import SuiteCatalog
from harness.evals.settings import SuiteSettings
from harness.frame import package_data
from harness.frame.errors import ConfigError, InputError, NotFound


@pytest.fixture
def colours(tmp_path: Path) -> SuiteSettings:
    file = tmp_path / "colours.jsonl"
    file.write_text(
        "\n".join(
            json.dumps({"input": f"{n}?", "target": ["red", "blue"][n % 2]}) for n in range(4)
        ),
        encoding="utf-8",
    )
    return SuiteSettings(
        name="colours",
        path=file,
        scorer="label",
        title="Colours",
    )


@pytest.mark.req("F6")
def test_whatever_decides_a_score_changes_the_pin(colours: SuiteSettings) -> None:
    was = load_suite(colours).pin.digest

    assert load_suite(colours).pin.digest == was
    for changed in (
        replace(colours, template="Q: {input}"),
        replace(colours, system="Be brief."),
        replace(colours, temperature=1.0),
        replace(colours, max_output_tokens=9),
        replace(colours, version="2"),
        replace(colours, scorer="exact"),
        replace(colours, request={"tool_choice": "none"}),
        replace(colours, scorer_options={"labels": ["red", "blue", "green"]}),
    ):
        assert load_suite(changed).pin.digest != was


@pytest.mark.req("F6")
def test_a_catalog_sees_that_its_data_has_changed(colours: SuiteSettings) -> None:
    catalog: SuiteCatalog = ConfiguredSuites({"colours": colours})
    before = catalog.pin("colours")
    assert colours.path is not None
    with colours.path.open("a", encoding="utf-8") as file:
        file.write('\n{"input": "new?", "target": "red"}')

    assert catalog.pin("colours").items == before.items + 1
    assert catalog.pin("colours").data_sha256 != before.data_sha256


def test_a_catalog_names_its_suites_and_the_nearest_to_a_wrong_name(
    colours: SuiteSettings,
) -> None:
    catalog = ConfiguredSuites(
        {
            "colours": colours,
            "plain": replace(colours, name="plain", title=""),
        }
    )

    assert catalog.names() == ["colours", "plain"]
    assert (catalog.title("colours"), catalog.title("plain")) == (
        "Colours",
        "plain",
    )
    with pytest.raises(NotFound, match="no suite 'colors'; did you mean 'colours'"):
        catalog.pin("colors")
    with pytest.raises(NotFound, match="there are: colours, plain"):
        catalog.title("zzzzz")
    with pytest.raises(NotFound, match="add one under `suites`"):
        ConfiguredSuites({}).pin("colours")


def test_a_suite_without_its_file_says_what_to_mend(colours: SuiteSettings) -> None:
    gone = replace(colours, path=Path("/nowhere/data.jsonl"))

    with pytest.raises(InputError, match=r"suite 'colours': .*No such file.*fix its path"):
        ConfiguredSuites({"colours": gone}).pin("colours")


def test_items_that_the_scorer_cannot_judge_are_counted_and_not_in_the_suite(
    tmp_path: Path,
) -> None:
    file = tmp_path / "asserted.jsonl"
    checked = {"assert": [{"type": "contains", "value": "a"}]}
    rows = [
        {
            "input": "a",
            "target": "a",
            "metadata": known,
        }
        for known in (checked, {})
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = SuiteSettings(name="asserted", path=file, scorer="assertions")
    catalog = ConfiguredSuites({"asserted": settings})

    assert catalog.pin("asserted").items == 1
    assert [*catalog.suite("asserted").left_out.values()] == [
        "it has no assertion (metadata.assert)"
    ]


def test_half_of_a_pair_of_characters_is_replaced_and_said(tmp_path: Path) -> None:
    file = tmp_path / "halves.jsonl"
    file.write_text('{"id": "a", "input": "a \\ud83d?", "target": "x\\ud83d"}')
    suite = load_suite(SuiteSettings("halves", path=file))

    assert suite.prompt("a") == "a \ufffd?"
    assert suite.score("x\ufffd", "a").strict == 1
    assert suite.pin.digest
    catalogue = ConfiguredSuites({"halves": suite.settings})
    assert "1 items contain \ufffd" in catalogue.describe_sample("halves")


def test_a_suite_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"input": "b", "target": "a"}', encoding="utf-8")

    with pytest.raises(InputError, match="cannot judge any item"):
        load_suite(SuiteSettings(name="s", path=file, scorer="assertions"))


def test_a_wrong_item_is_told_with_its_file(colours: SuiteSettings) -> None:
    with pytest.raises(InputError, match=r"colours\.jsonl:1: item 'colours-0001': target"):
        load_suite(replace(colours, scorer="numeric"))


def test_a_suite_needs_data_and_a_template_with_a_place_for_the_input(
    colours: SuiteSettings,
) -> None:
    with pytest.raises(ConfigError, match="give it a path"):
        load_suite(replace(colours, path=None))
    with pytest.raises(ConfigError, match=r"must contain \{input\}"):
        load_suite(replace(colours, template="Q: {question}"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{input}", "Which {choices}?\n\nA) red\nB) {input}"),
        (
            "Q: {input}\n{choices}\nLetter:",
            "Q: Which {choices}?\nA) red\nB) {input}\nLetter:",
        ),
        (
            '{"q": "{input}"}',
            '{"q": "Which {choices}?"}\n\nA) red\nB) {input}',
        ),
    ],
)
def test_a_template_places_input_and_choices_and_leaves_other_braces(
    template: str, text: str
) -> None:
    item = Item("i", "Which {choices}?", "A", choices=("red", "{input}"))

    assert render_prompt(template, item) == text


def test_items_are_shown_with_their_targets(tmp_path: Path) -> None:
    file = tmp_path / "tagged.jsonl"
    rows = [
        {
            "id": "a",
            "input": "1?",
            "target": "x",
        },
        {
            "id": "b",
            "input": "2?",
            "target": {"k": 1},
        },
        {
            "id": "c",
            "input": "3?",
            "target": "z",
        },
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    catalog: SuiteCatalog = ConfiguredSuites({"tagged": SuiteSettings("tagged", path=file)})

    assert catalog.item_texts("tagged", "a") == ("1?", "x")
    assert catalog.item_texts("tagged", "b") == ("2?", '{"k": 1}')
    with pytest.raises(NotFound, match="no item 'd'"):
        catalog.item_texts("tagged", "d")


def test_an_inspect_task_shows_no_items() -> None:
    catalog = ConfiguredSuites({"t": SuiteSettings("t", task="mine.py")})

    with pytest.raises(NotFound, match="is an Inspect task"):
        catalog.item_texts("t", "a")


DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "suites.md").read_text(encoding="utf-8")
PAGES = ("clusters-and-slices", "judges", "public-suites")
TEXT = REFERENCE + "".join(
    (DOCS / "how-to" / f"{page}.md").read_text(encoding="utf-8") for page in PAGES
)
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_loads_and_names_a_scorer_that_there_is(
    tmp_path: Path, example: str
) -> None:
    file = tmp_path / "swapproof.yaml"
    file.write_text(example, encoding="utf-8")

    suites = load_settings(
        file, {}, defaults=package_data.path("config") / "default.yaml"
    ).suites.values()

    assert {suite.scorer for suite in suites} <= SCORERS.keys()


def test_every_scorer_has_its_line_in_the_table() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", REFERENCE, re.MULTILINE))

    assert SCORERS.keys() <= listed


FOLDER = Path(__file__).resolve().parents[2] / "datasets"
SUITES = {
    "arithmetic": "numeric",
    "extraction": "json_fields",
    "tickets": "label",
    "instructions": "instructions",
}
each_suite = pytest.mark.parametrize("suite", SUITES)


@cache
def items(suite: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{suite}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def manifest() -> dict[str, dict[str, Any]]:
    text = (FOLDER / "manifest.toml").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in tomllib.loads(text)["dataset"]}


@pytest.mark.req("A7", "F6")
@each_suite
def test_the_manifest_states_hash_count_licence_and_origin_of_each_file(suite: str) -> None:
    entry = manifest()[suite]
    content = (FOLDER / entry["file"]).read_bytes()

    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["items"] == content.count(b"\n") == len(items(suite)) >= 400
    assert entry["licence"] == "CC0-1.0"
    assert entry["version"] == "1"


@pytest.mark.req("A7", "F6")
def test_ids_and_inputs_are_unique_over_all_suites() -> None:
    everything = [item for suite in SUITES for item in items(suite)]

    assert len({item["id"] for item in everything}) == len(everything)
    assert len({item["input"] for item in everything}) == len(everything)


def spoken(suite: str, answer: object) -> str:
    """The answer as the suite's prompts ask for it."""
    if suite == "arithmetic":
        return f"Step by step.\nANSWER: {answer}"
    return answer if isinstance(answer, str) else json.dumps(answer)


@pytest.mark.req("A7", "F6")
@each_suite
def test_every_target_is_right_and_every_distractor_wrong(suite: str) -> None:
    options = {"final_line": "ANSWER:"} if suite == "arithmetic" else {}
    file = FOLDER / f"{suite}.jsonl"
    loaded = load_suite(
        SuiteSettings(
            suite,
            path=file,
            scorer=SUITES[suite],
            scorer_options=options,
        )
    )

    assert loaded.left_out == {}
    for item in loaded.items.values():
        assert loaded.score(spoken(suite, item.target), item.id).strict == 1, item.id
        for wrong in item.metadata["distractors"]:
            assert loaded.score(spoken(suite, wrong), item.id).strict == 0, (
                item.id,
                wrong,
            )
