"""One document of blocks, rendered as Markdown, as a page and on a terminal."""

from collections.abc import Sequence
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.interfaces.cli.proposals.comparison import print_blocks
from harness.proposals.report.blocks import (
    Block,
    BulletList,
    Code,
    Commands,
    Facts,
    Folded,
    Heading,
    Interval,
    Quotation,
    Sentence,
    Strong,
    Table,
    mark_code,
    plain_text,
)
from harness.proposals.report.markdown import render_markdown
from harness.proposals.report.page import render_html, render_page

pytestmark = pytest.mark.req("A3", "A7")

DOCUMENT: Sequence[Block] = (
    Heading(("PASSED: ", Code("sim/better"), " may replace ", Code("sim/base")), 1),
    Interval("colours", -0.4, -0.61, -0.17),
    Facts([("Next", mark_code("run `swapproof doctor`, then propose again"))]),
    BulletList("Against", [(Strong("1 s slower"), ": 3 s against 2 s")]),
    Table(("suite", "items"), [("colours", "20 of 60")]),
    Sentence("Differences are points of 100."),
    Commands(["swapproof gate replay v_1"]),
    Folded("5 of its answers", [Quotation("Candidate", "```json```")]),
)


def test_a_quotation_in_markdown_ends_after_700_characters() -> None:
    whole, cut = (render_markdown([Quotation("", "a" * length)]) for length in (700, 701))

    assert cut == whole.replace("a" * 700, "a" * 700 + " […]")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - of HTMLParser
        self.found.append(tag)


def test_a_document_says_the_same_in_markdown_on_a_page_and_on_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_blocks(DOCUMENT)

    assert capsys.readouterr().out.splitlines() == [
        "",
        "PASSED: sim/better may replace sim/base",
        "next  run swapproof doctor, then propose again",
        "against: 1 s slower: 3 s against 2 s",
        "SUITE    ITEMS",
        "colours  20 of 60",
        "Differences are points of 100.",
        "    swapproof gate replay v_1",
        "the report shows 5 of its answers",
    ]
    assert render_markdown(DOCUMENT).split("\n\n") == [
        "# PASSED: `sim/better` may replace `sim/base`",
        "- **Next:** run `swapproof doctor`, then propose again",
        "**Against:**",
        "- **1 s slower**: 3 s against 2 s",
        "| suite | items |\n|---|---|\n| colours | 20 of 60 |",
        "Differences are points of 100.",
        "```\nswapproof gate replay v_1\n```",
        "### 5 of its answers",
        "Candidate",
        "````text\n```json```\n````\n",
    ]
    page = render_page(DOCUMENT)
    assert "<title>PASSED: sim/better may replace sim/base</title>" in page
    assert "<p><b>Next:</b> run <code>swapproof doctor</code>, then propose again</p>" in page
    assert "<li><b>1 s slower</b>: 3 s against 2 s</li>" in page
    assert "<td>colours</td><td>20 of 60</td>" in page
    assert "colours: −40.0 points (95 % interval −61.0 to −17.0)" in page
    assert "<summary>5 of its answers</summary>" in page


@given(st.text())
def test_a_text_that_a_model_or_a_person_wrote_is_data_on_a_page(text: str) -> None:
    plain: Sequence[Block] = (
        Sentence("so"),
        Facts([("so", Code("so"))]),
        Table(("so",), [("so",)]),
        Quotation("so", "so"),
    )
    hostile: Sequence[Block] = (
        Sentence(text),
        Facts([(text, Code(text))]),
        Table((text or "so",), [(text,)]),
        Quotation(text or "so", text),
    )
    expected = Tags()
    expected.feed(render_html(plain))
    found = Tags()
    found.feed(render_html(hostile))

    assert found.found == expected.found


@given(st.text())
def test_code_between_backticks_loses_no_other_character(sentence: str) -> None:
    marked = plain_text(mark_code(sentence))

    assert marked in (sentence, sentence.replace("`", ""))
