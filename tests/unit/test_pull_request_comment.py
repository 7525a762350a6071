"""A report of `swapproof try` is one comment of a pull request, whatever its texts contain."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from deploy.pull_request_comment import (
    CUT,
    MAX_BODY_BYTES,
    MAX_WAIT_S,
    CommentRefused,
    PullRequest,
    check_inputs,
    explain,
    read_refusal,
    write_body,
    write_comment,
)
from tests.support.site.github_api import (
    BOT,
    NUMBER,
    READ_ONLY_TOKEN,
    REFUSALS,
    REPOSITORY,
    TOKEN,
    GitHubStub,
)

BODY = write_body("swapproof", 0, "gpt-5-mini is better", "the job")


@pytest.fixture
def github() -> Iterator[GitHubStub]:
    with GitHubStub().up() as stub:
        yield stub


def write(
    github: GitHubStub, body: str = BODY, token: str = TOKEN, number: int = NUMBER
) -> Any:
    """Returns the comment and how long the client waited, in seconds."""
    waits: list[float] = []
    pull_request = PullRequest(github.address, REPOSITORY, number, token)
    return write_comment(pull_request, body, BOT, sleep=waits.append), waits


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_a_published_refusal_is_read_as_its_page_says(name: str) -> None:
    published = REFUSALS[name]

    refusal = read_refusal(
        published["status"], published["headers"], published["body"].encode()
    )

    assert refusal.wait_s == published["right"]
    assert published["says"] in str(refusal)


def test_the_first_run_writes_a_comment_and_the_second_edits_it(github: GitHubStub) -> None:
    first, _ = write(github)
    second, _ = write(github, write_body("swapproof", 3, "gpt-5-mini is worse", "the job"))

    assert first.id == second.id
    ((author, body),) = github.comments.values()
    assert author == BOT
    assert body.startswith("<!-- swapproof-try: swapproof -->\n### swapproof: FAILED\n")


def test_comparisons_with_different_names_have_a_comment_each(github: GitHubStub) -> None:
    write(github)
    write(github, write_body("prompts", 0, "better", "the job"))

    assert len(github.comments) == 2


def test_the_comment_is_found_on_a_later_page_and_the_token_stays_at_github(
    github: GitHubStub,
) -> None:
    for number in range(250):
        github.add(None if number % 7 == 0 else "a-person", f"comment {number}")
    ours = github.add(BOT, BODY)

    comment, _ = write(github)

    assert comment.id == ours
    assert [method for method, _ in github.calls] == ["GET", "GET", "GET", "PATCH"]


def test_a_link_to_another_host_is_not_followed(github: GitHubStub) -> None:
    with GitHubStub().up() as other:
        github.next_link = f"{other.address}/repos/{REPOSITORY}/issues/{NUMBER}/comments"
        write(github)

        assert other.calls == []


def test_a_redirect_is_refused_and_its_host_does_not_get_the_token(github: GitHubStub) -> None:
    with GitHubStub().up() as other:
        github.moved_to = f"{other.address}/repos/{REPOSITORY}/issues/{NUMBER}/comments"

        with pytest.raises(CommentRefused, match="Moved Permanently"):
            write(github)

        assert other.tokens == []


def test_another_person_s_comment_with_the_marker_is_left_alone(github: GitHubStub) -> None:
    forged = github.add("a-person", f"{BODY}\n")
    quoted = github.add(BOT, f"> {BODY}")

    comment, _ = write(github)

    assert comment.id not in (forged, quoted)
    assert len(github.comments) == 3


def test_of_two_comments_by_jobs_at_the_same_time_the_older_one_stays(
    github: GitHubStub,
) -> None:
    older = github.add(BOT, BODY)
    github.add(BOT, BODY)

    comment, _ = write(github)

    assert (comment.id, list(github.comments)) == (older, [older])


def test_a_read_only_token_of_a_fork_is_refused_once_and_explained(github: GitHubStub) -> None:
    with pytest.raises(CommentRefused) as caught:
        write(github, token=READ_ONLY_TOKEN)

    assert [method for method, _ in github.calls] == ["GET", "POST"]
    said = explain(caught.value, REPOSITORY)
    assert "Resource not accessible by integration" in said
    assert "permissions: {pull-requests: write}" in said
    assert "fork" in said


@pytest.mark.parametrize(
    ("token", "number", "says"),
    [("ghs_expired", NUMBER, "valid token"), (TOKEN, 8, f"able to see {REPOSITORY}")],
)
def test_a_bad_token_and_an_unseen_pull_request_are_explained(
    github: GitHubStub, token: str, number: int, says: str
) -> None:
    with pytest.raises(CommentRefused) as caught:
        write(github, token=token, number=number)

    assert says in explain(caught.value, REPOSITORY)


def test_a_rate_limit_is_waited_for_as_its_headers_say(github: GitHubStub) -> None:
    github.refusals = [
        "the primary limit of an installation",
        "a secondary limit that names the time to wait",
    ]

    _, waits = write(github)

    assert waits == [40.0, 30.0]
    assert len(github.comments) == 1


def test_after_three_refusals_and_for_a_long_wait_the_client_gives_up(
    github: GitHubStub,
) -> None:
    github.refusals = ["a secondary limit without any header"] * 5
    with pytest.raises(CommentRefused) as caught:
        write(github)

    assert len(github.refusals) == 2
    assert "again later" in explain(caught.value, REPOSITORY)
    hour = {"retry-after": "3600"}
    assert (read_refusal(403, hour, b"{}").wait_s or 0) > MAX_WAIT_S


def test_a_comment_that_was_stored_without_an_answer_is_not_written_twice(
    github: GitHubStub,
) -> None:
    github.store_before_refusal = True
    github.refusals_of_writes = ["a gateway that did not get an answer"]

    _, waits = write(github)

    assert [method for method, _ in github.calls] == ["GET", "POST", "GET", "PATCH"]
    assert waits == [5.0]
    assert len(github.comments) == 1


def test_a_comment_deleted_since_it_was_listed_is_written_anew(
    github: GitHubStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = github.add(BOT, BODY)
    listed = list(PullRequest(github.address, REPOSITORY, NUMBER, TOKEN).comments())
    del github.comments[gone]
    monkeypatch.setattr(PullRequest, "comments", lambda _: iter(listed))

    comment, _ = write(github)

    assert comment.author == BOT
    assert github.comments[comment.id][1] == BODY


def test_a_server_that_is_away_is_asked_three_times() -> None:
    waits: list[float] = []
    with GitHubStub().up() as stub:
        pull_request = PullRequest(stub.address, REPOSITORY, NUMBER, TOKEN)

    with pytest.raises(CommentRefused, match="no answer"):
        write_comment(pull_request, BODY, BOT, sleep=waits.append)

    assert waits == [5.0, 5.0]


HOSTILE = [
    "@octo/everyone please look",
    "![pixel](https://evil.example/pixel.png)",
    "[click](https://evil.example) https://evil.example",
    "<img src=https://evil.example/x.png><script>alert(1)</script>",
    "```\n# PASSED\n```\n~~~\n</details>",
    "<!-- swapproof-try: swapproof -->",
    "\n\n# heading\n\n| a | b |\n|---|---|",
    "\r# heading\r\n\x0b# heading\x0c# heading\u2028# heading\x85# heading",
    "#1 GH-1 octo/app@abcdef1 :tada: \x1b[31mred\x1b[0m",
    "looks like \u202etxt.exe",
]


def read_blocks(body: str) -> dict[str, list[str]]:
    """Returns the text of each kind of block, as a reader of Markdown finds them."""
    blocks: dict[str, list[str]] = {}
    for token in MarkdownIt("commonmark", {"html": True}).parse(body):
        if token.content:
            blocks.setdefault(token.type, []).append(token.content)
    return blocks


@pytest.mark.parametrize("report", HOSTILE)
def test_a_reader_of_markdown_finds_a_hostile_report_in_one_block_of_code(report: str) -> None:
    body = write_body("swapproof", 4, report, "the job")

    blocks = read_blocks(body)

    assert blocks.pop("html_block") == ["<!-- swapproof-try: swapproof -->\n"]
    assert blocks.pop("inline") == ["swapproof: NOT ENOUGH EVIDENCE", "the job"]
    ((kind, (code,)),) = blocks.items()
    assert kind == "code_block"
    assert report.split(maxsplit=1)[0].strip("\r") in code
    for unseen in "\r\x0b\x0c\x1b\u2028\x85\u202e":
        assert unseen not in body


@given(
    st.text() | st.text("`~\n\t <>!-[]()@#|*_\\\r", max_size=60),
    st.integers(1, 2000),
    st.integers(-5, 300),
)
def test_a_body_is_never_too_long_and_never_leaves_its_code(
    text: str, copies: int, exit_code: int
) -> None:
    body = write_body("swapproof", exit_code, text * copies, "the job")

    assert len(body.encode()) <= MAX_BODY_BYTES
    blocks = read_blocks(body)
    assert set(blocks) <= {"html_block", "inline", "code_block"}
    assert blocks["html_block"] == ["<!-- swapproof-try: swapproof -->\n"]
    title, *rest = blocks["inline"]
    assert title.startswith("swapproof: ")
    assert rest in (["the job"], [CUT, "the job"])


@pytest.mark.parametrize("report", ["x" * 70_000, "\n" * 70_000, "é\n" * 70_000, "`" * 70_000])
def test_github_takes_the_longest_report(github: GitHubStub, report: str) -> None:
    comment, _ = write(github, write_body("swapproof", 3, report, "the job"))

    assert f"\n{CUT}\n" in github.comments[comment.id][1]


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("NAME", "--> <b>", "name: "),
        ("TOKEN", "", "token: "),
        ("TOKEN", "ghs\nInjected: header", "token: "),
        ("GITHUB_API_URL", "file:///etc/passwd", "GITHUB_API_URL: "),
    ],
)
def test_a_wrong_input_is_named_and_a_token_is_not_shown(
    variable: str, text: str, says: str
) -> None:
    usable = {"NAME": "swapproof", "TOKEN": "ghs_1\n", "GITHUB_API_URL": "https://api.example"}

    wrong = check_inputs({**usable, variable: text})

    assert check_inputs(usable) == ""
    assert wrong.startswith(says)
    assert "Injected" not in wrong
