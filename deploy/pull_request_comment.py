"""Writes a report of `swapproof try` to a pull request, as one comment that later runs edit.

The GitHub Action in `.github/actions/try` runs this file alone, with the standard library:
`python3 -I pull_request_comment.py REPORT EXIT_CODE`. The variables are GitHub's, and TOKEN,
NAME and AUTHOR (inputs of the action). A refused comment is a warning of the job: the report is
on the job's page too.
"""

import json
import os
import re
import sys
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

# GitHub's limit is in characters. Bytes are never fewer, so this holds in any way of counting.
MAX_BODY_BYTES: Final = 65_536
ATTEMPTS: Final = 3
MAX_WAIT_S: Final = 120.0
# GitHub asks for at least a minute where a rate limit's answer names no time.
UNNAMED_WAIT_S: Final = 60.0
FAULT_WAIT_S: Final = 5.0
TIMEOUT_S: Final = 30.0
PAGE_SIZE: Final = 100
TITLES: Final[Mapping[int, str]] = {
    0: "PASSED",
    1: "NOT MEASURED",
    2: "REFUSED",
    3: "FAILED",
    4: "NOT ENOUGH EVIDENCE",
}
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,50}")
ESCAPE_SEQUENCE: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
NEXT_PAGE: Final = re.compile(r'<([^<>]+)>\s*;\s*rel="next"')
UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
TOKEN: Final = re.compile(r"[!-~]+")
CUT: Final = "The report is longer than a comment may be. The job's log has all of it."


class CommentRefused(Exception):
    """Says that GitHub did not take the comment. status: 0 without an answer. wait_s: the time
    after which the request may be sent again, in seconds; None if that cannot help.
    """

    def __init__(self, status: int, message: str, wait_s: float | None) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.wait_s = wait_s


@dataclass(frozen=True)
class Comment:
    """A comment of the pull request. id: GitHub's. author: its login. address: its page."""

    id: int
    author: str
    body: str
    address: str


@dataclass(frozen=True)
class PullRequest:
    """A pull request in GitHub's REST API. api: the API's address. repository: `owner/name`."""

    api: str
    repository: str
    number: int
    token: str

    def comments(self) -> Iterator[Comment]:
        """Reads all comments, the oldest first. Raises CommentRefused."""
        address = f"{self._issues}/{self.number}/comments?per_page={PAGE_SIZE}"
        seen: set[str] = set()
        while address not in seen:
            seen.add(address)
            headers, page = self._send("GET", address)
            if not isinstance(page, list):
                raise CommentRefused(0, "GitHub's list of comments is not a list", None)
            yield from map(_read_comment, page)
            following = NEXT_PAGE.search(headers.get("link", ""))
            # Another host must not get the token.
            if following is None or not following[1].startswith(f"{self.api}/"):
                return
            address = following[1]

    def create(self, body: str) -> Comment:
        """Raises CommentRefused."""
        address = f"{self._issues}/{self.number}/comments"
        return _read_comment(self._send("POST", address, {"body": body})[1])

    def edit(self, comment: Comment, body: str) -> Comment:
        """Raises CommentRefused."""
        address = f"{self._issues}/comments/{comment.id}"
        return _read_comment(self._send("PATCH", address, {"body": body})[1])

    def delete(self, comment: Comment) -> None:
        """Raises CommentRefused."""
        self._send("DELETE", f"{self._issues}/comments/{comment.id}")

    @property
    def _issues(self) -> str:
        return f"{self.api}/repos/{self.repository}/issues"

    def _send(
        self,
        method: str,
        address: str,
        document: Mapping[str, str] | None = None,
    ) -> tuple[Mapping[str, str], object]:
        """Returns the answer's headers, with names in lower case, and its JSON document."""
        request = urllib.request.Request(  # noqa: S310 - below the API's address, from the runner
            address,
            None if document is None else json.dumps(document).encode(),
            {
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "User-Agent": "swapproof-try",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            method=method,
        )
        try:
            with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                headers = {name.lower(): value for name, value in error.headers.items()}
                raise read_refusal(error.code, headers, error.read()) from None
        except (OSError, HTTPException) as error:
            raise CommentRefused(0, f"no answer of {address}: {error}", FAULT_WAIT_S) from None
        try:
            return headers, json.loads(text) if text else None
        except ValueError:
            raise CommentRefused(0, f"the answer of {address} is no JSON", None) from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: urllib would send the token to the other host."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - urllib's signature
        fp: IO[bytes],  # noqa: ARG002 - urllib's signature
        code: int,  # noqa: ARG002 - urllib's signature
        msg: str,  # noqa: ARG002 - urllib's signature
        headers: HTTPMessage,  # noqa: ARG002 - urllib's signature
        newurl: str,  # noqa: ARG002 - urllib's signature
    ) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirects)


def _read_comment(document: object) -> Comment:
    match document:
        case {"id": int(number), "body": str(body), "html_url": str(address), **rest}:
            # A deleted account has no user.
            match rest.get("user"):
                case {"login": str(author)}:
                    return Comment(number, author, body, address)
                case _:
                    return Comment(number, "", body, address)
        case _:
            raise CommentRefused(0, "GitHub's answer is not a comment", None)


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> CommentRefused:
    """Reads the reason of an answer that is an error.

    Args:
        headers: with names in lower case.
    """
    message = f"GitHub answered with status {status}"
    details: list[str] = []
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        message = str(document.get("message") or message)
        errors = document.get("errors")
        details = [
            str(error["message"])
            for error in (errors if isinstance(errors, list) else [])
            if isinstance(error, dict) and error.get("message")
        ]
    text = ": ".join([message, *details])
    return CommentRefused(status, text, _find_wait_s(status, headers, message))


def _find_wait_s(status: int, headers: Mapping[str, str], message: str) -> float | None:
    if status >= 500:
        return FAULT_WAIT_S
    if status not in (403, 429):
        return None
    if headers.get("retry-after", "").isdecimal():
        return float(headers["retry-after"])
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
        # GitHub's own clock: the runner's may differ.
        try:
            now = parsedate_to_datetime(headers["date"]).timestamp()
        except (KeyError, ValueError):
            return UNNAMED_WAIT_S
        return max(1.0, float(reset) - now)
    return UNNAMED_WAIT_S if status == 429 or "rate limit" in message.lower() else None


def write_comment(
    pull_request: PullRequest,
    body: str,
    author: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Comment:
    """Writes the comment, and waits where GitHub asks for it. Raises CommentRefused.

    Args:
        author: the login that belongs to the token.

    Each attempt looks for the comment first: a request without an answer may have been carried
    out.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _write_once(pull_request, body, author)
        except CommentRefused as refusal:
            if attempt == ATTEMPTS or refusal.wait_s is None or refusal.wait_s > MAX_WAIT_S:
                raise
            sleep(refusal.wait_s)
    raise AssertionError


def _write_once(pull_request: PullRequest, body: str, author: str) -> Comment:
    marker = body.partition("\n")[0]
    # Other people can write the marker, but not under this name.
    ours = [
        comment
        for comment in pull_request.comments()
        if comment.author == author and comment.body.startswith(marker)
    ]
    # Two jobs at the same time both found no comment.
    for copy in ours[1:]:
        pull_request.delete(copy)
    if ours:
        try:
            return pull_request.edit(ours[0], body)
        except CommentRefused as refusal:
            if refusal.status != 404:  # deleted since it was listed
                raise
    return pull_request.create(body)


def write_body(name: str, exit_code: int, report: str, footer: str) -> str:
    """Writes the comment: a hidden marker, the outcome, and the report as indented code.

    Indented code has no end that a text could contain. So names and texts from files cannot
    become markup, links, images or mentions.
    """
    title = TITLES.get(exit_code, f"NO ANSWER (exit code {exit_code})")
    start = f"<!-- swapproof-try: {name} -->\n### {name}: {title}\n\n"
    end = f"\n{footer}\n"
    room = MAX_BODY_BYTES - len(f"{start}{end}{CUT}\n\n".encode())
    lines: list[str] = []
    for line in show_controls(report).splitlines() or ["(no report)"]:
        code = f"    {line}\n".encode()
        if len(code) > room:
            lines.append(code[: max(0, room - 1)].decode(errors="ignore").rstrip("\n") + "\n")
            end = f"\n{CUT}\n{end}"
            break
        lines.append(code.decode())
        room -= len(code)
    return f"{start}{''.join(lines)}{end}"


def show_controls(text: str) -> str:
    """Shows unseen characters, such as marks of the writing direction, as `\\u202e`.

    Colours of a terminal are removed. Lines end with a line feed.
    """
    plain = ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n")
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in UNSEEN
        else f"\\u{ord(character):04x}"
        for character in plain
    )


def find_number(variables: Mapping[str, str]) -> int | None:
    """Returns the number of the job's pull request; None for another event."""
    if variables.get("GITHUB_EVENT_NAME") != "pull_request":
        return None
    event = json.loads(Path(variables["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    return int(event["pull_request"]["number"])


def explain(refusal: CommentRefused, repository: str) -> str:
    """Says what people can do about a refused comment."""
    advice = {
        401: "Give the action a valid token.",
        403: (
            "Give the job `permissions: {pull-requests: write}`. A pull request from a fork "
            "or by Dependabot has a token that may only read: its report is on the job's page "
            "alone."
        ),
        404: f"The token must be able to see {repository}.",
    }.get(refusal.status, "The report is on the job's page.")
    if refusal.wait_s is not None:
        advice = "Run the job again later. The report is on the job's page."
    return f"GitHub refused the comment ({refusal}). {advice}"


def as_command(kind: str, message: str) -> str:
    """Writes a workflow command, such as a warning of the job."""
    data = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{kind}::{data}\n"


def check_inputs(variables: Mapping[str, str]) -> str:
    """Returns what is wrong with an input; empty if all are usable."""
    if not NAME.fullmatch(variables["NAME"]):
        return f"name: {variables['NAME']!r} must match {NAME.pattern}"
    if not TOKEN.fullmatch(variables["TOKEN"].strip()):
        return "token: is empty, or has characters that no token has"
    if urlsplit(variables["GITHUB_API_URL"]).scheme not in ("http", "https"):
        return f"GITHUB_API_URL: {variables['GITHUB_API_URL']!r} is not an address"
    return ""


def main(arguments: list[str], variables: Mapping[str, str]) -> int:
    """Comments on the job's pull request, and writes the job's page. Returns the exit code."""
    if wrong := check_inputs(variables):
        sys.stdout.write(as_command("error", wrong))
        return 2
    report = Path(arguments[0]).read_text(encoding="utf-8", errors="replace")
    repository = variables["GITHUB_REPOSITORY"]
    server = variables["GITHUB_SERVER_URL"]
    job = f"{server}/{repository}/actions/runs/{variables['GITHUB_RUN_ID']}"
    footer = f"[The job]({job}) compared two files."
    body = write_body(variables["NAME"], int(arguments[1]), report, footer)
    with Path(variables["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as summary:
        summary.write(body)
    number = find_number(variables)
    if number is None:
        sys.stdout.write("no comment: the event is not `pull_request`\n")
        return 0
    api = variables["GITHUB_API_URL"].rstrip("/")
    pull_request = PullRequest(api, repository, number, variables["TOKEN"].strip())
    try:
        comment = write_comment(pull_request, body, variables["AUTHOR"])
    except CommentRefused as refusal:
        sys.stdout.write(as_command("warning", explain(refusal, repository)))
        return 0
    address = comment.address.partition("\n")[0]
    with Path(variables["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as outputs:
        outputs.write(f"comment-url={address}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], os.environ))
