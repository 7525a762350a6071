"""Examples name models that live on: a reader who copies one gets an answer.

The catalogue tells the ends. Two tests read it, so that no test fails only because time passes,
and yet no release has a dying example. `make test` counts from CHECKED_ON: it fails if a change
adds a model that ends soon, or if a new catalogue announces an end. `make verify`, which a
release needs, counts from today. Move CHECKED_ON on when you exchange the models.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import pytest

from harness.frame.runtime.clock import SystemClock
from harness.providers.kinds import PROVIDER_KINDS
from harness.providers.models.catalogue import (
    KINDS,
    Catalogue,
    CatalogueEntry,
    LitellmTable,
    build_catalogue,
)
from harness.providers.target import Price

pytestmark = pytest.mark.req("F11")
ROOT: Final = Path(__file__).parent.parent
CHECKED_ON: Final = date(2026, 12, 1)
SIX_MONTHS: Final = timedelta(days=182)
SOONEST_END: Final = timedelta(days=60)
# Records of the past: decisions, measurements of their day, and the log of changes.
PAST: Final = ("docs/adr/", "docs/explanation/benchmarks.md", "docs/explanation/real-run.md")
# Pages with examples, besides the docs. The examples of the CLI's help are in reference/cli.md.
SHIPPED: Final = (
    "README.md",
    "clients/python/README.md",
    "config/default.yaml",
    "distributions/try/README.md",
    "harness/app/demo/models.yaml",
    "harness/app/set_up.py",
    "harness/interfaces/api/agents/bodies.py",
    "skills/swapproof/SKILL.md",
)
# Names that a page shows because they end.
ENDING: Final[Mapping[str, frozenset[str]]] = {
    "docs/how-to/model-ends.md": frozenset(
        {
            "gpt-4.1",
            "gpt-4.1-2025-04-14",
            "gpt-4.1-mini-2025-04-14",
            "gpt-5-mini",
            "gpt-5-mini-2025-08-07",
            "gpt-5.1",
        }
    )
}
# The kinds whose bare names, such as `gpt-6-luna`, count as examples too.
MAKERS: Final = ("openai", "anthropic", "gemini")
FENCED: Final = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
INLINE: Final = re.compile(r"`[^`\n]+`")
NAME: Final = re.compile(r"(?<![\w./:@-])[A-Za-z0-9][\w./:@-]*[\w](?!\*|-\*|\.\*)")


@dataclass(frozen=True, order=True, slots=True)
class Example:
    """A model that a page names in code."""

    page: str
    kind: str
    model: str


def find_examples(page: str, text: str, catalogue: Catalogue) -> Iterator[Example]:
    """Yields the models of a page: `KIND/MODEL`, `KIND:MODEL`, and bare names of the makers'
    models in the catalogue.
    """
    codes = [text]
    if page.endswith(".md"):
        codes = [*FENCED.findall(text), *INLINE.findall(FENCED.sub("", text))]
    for name in NAME.findall("\n".join(codes)):
        found = re.fullmatch(r"(\w+)[/:](.+)", name)
        kind = KINDS.get(found[1], found[1]) if found else ""
        if found and kind in PROVIDER_KINDS:
            model = found[2]
            if catalogue.find(kind, model) or is_named_like(kind, model):
                yield Example(page, kind, model)
            continue
        for maker in MAKERS:
            if catalogue.find(maker, name) and re.search(r"\d", name):
                yield Example(page, maker, name)


def is_named_like(kind: str, model: str) -> bool:
    """Tells whether a name has the form of a version of one of the makers' models."""
    keywords = PROVIDER_KINDS[kind].keywords or "\0"
    return kind in MAKERS and model.startswith(keywords) and bool(re.search(r"\d", model))


def list_examples(catalogue: Catalogue) -> list[Example]:
    pages = [
        page
        for path in sorted(ROOT.glob("docs/**/*.md"))
        if not (page := path.relative_to(ROOT).as_posix()).startswith(PAST)
    ]
    found = {
        example
        for page in (*SHIPPED, *pages)
        for example in find_examples(page, (ROOT / page).read_text("utf-8"), catalogue)
    }
    return sorted(found)


def list_ending(
    examples: list[Example], catalogue: Catalogue, today: date, ahead: timedelta
) -> list[str]:
    """Lists the examples that end within a time, with the day."""
    ends = [
        (example, catalogue.find_end(example.kind, example.model, today))
        for example in examples
    ]
    return [
        f"{example.page}: {example.kind}/{example.model} ends on {end.day}"
        for example, end in ends
        if end is not None and end.day <= today + ahead
    ]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return LitellmTable().catalogue()


@pytest.fixture(scope="module")
def examples(catalogue: Catalogue) -> list[Example]:
    return [
        example
        for example in list_examples(catalogue)
        if example.model not in ENDING.get(example.page, ())
    ]


def test_no_example_names_a_model_that_ends_within_six_months_of_the_last_check(
    catalogue: Catalogue, examples: list[Example]
) -> None:
    assert len(examples) > 30
    assert list_ending(examples, catalogue, CHECKED_ON, SIX_MONTHS) == []


@pytest.mark.verify
def test_no_example_names_a_model_that_ends_within_60_days_of_today(
    catalogue: Catalogue, examples: list[Example]
) -> None:
    today = SystemClock().now().date()
    assert list_ending(examples, catalogue, today, SOONEST_END) == []


def test_the_catalogue_knows_each_example_with_its_price(
    catalogue: Catalogue, examples: list[Example]
) -> None:
    unknown = [
        f"{example.page}: {example.kind}/{example.model}"
        for example in examples
        if example.kind in MAKERS
        and ((entry := catalogue.find(example.kind, example.model)) is None or not entry.price)
    ]
    assert unknown == []


def test_each_name_that_a_page_may_show_because_it_ends_is_still_there(
    catalogue: Catalogue,
) -> None:
    shown = {(example.page, example.model) for example in list_examples(catalogue)}
    allowed = {(page, model) for page, models in ENDING.items() for model in models}
    assert allowed <= shown


def test_an_example_that_ends_soon_or_is_unknown_is_found() -> None:
    entries = [
        CatalogueEntry("openai", "gpt-7", Price(1.0, 2.0)),
        CatalogueEntry("openai", "gpt-7-2026-01-01", end_date=date(2027, 1, 30)),
        CatalogueEntry("anthropic", "claude-9", end_date=date(2027, 1, 31)),
    ]
    known = build_catalogue(entries)
    text = (
        "Ask `openai:gpt-7`, `gpt-8*` or claude-9.\n```yaml\n- claude-9\n- openai/gpt-8\n```\n"
    )

    found = sorted(find_examples("a.md", text, known))

    assert [(one.kind, one.model) for one in found] == [
        ("anthropic", "claude-9"),
        ("openai", "gpt-7"),
        ("openai", "gpt-8"),
    ]
    assert list_ending(found, known, CHECKED_ON, SOONEST_END) == [
        "a.md: openai/gpt-7 ends on 2027-01-30"
    ]
