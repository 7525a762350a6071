"""A stub of GitHub's REST API for the comments of pull request 7, as strict as GitHub's own.

It checks headers, paths and bodies, pages its lists by `Link` headers with the repository's
number, and refuses with the published bodies of tests/world/github.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.support.site.http_thread import Exchange, serving

REFUSALS: Final[Mapping[str, Any]] = {
    refusal["name"]: refusal
    for refusal in yaml.safe_load(
        (Path(__file__).parents[2] / "world/github/refusals.yaml").read_text(encoding="utf-8")
    )
}
REPOSITORY: Final = "octo/app"
REPOSITORY_ID: Final = 1300192
NUMBER: Final = 7
TOKEN: Final = "ghs_writes"  # noqa: S105 - of the stub
READ_ONLY_TOKEN: Final = "ghs_reads"  # noqa: S105 - of the stub
BOT: Final = "github-actions[bot]"
VERSIONS: Final = ("2022-11-28", "2026-03-10")
COMMENTS: Final = re.compile(
    rf"(?:/repos/{REPOSITORY}|/repositories/{REPOSITORY_ID})/issues/{NUMBER}/comments"
)
COMMENT: Final = re.compile(rf"/repos/{REPOSITORY}/issues/comments/(\d+)")
MAX_CHARACTERS: Final = 65_536


@dataclass
class GitHubStub:
    """comments: by id, with login and text; ids never return.

    refusals: names of REFUSALS, for the next lists. refusals_of_writes: for the next requests
    that write. store_before_refusal: a refused request was nevertheless carried out. next_link,
    moved_to: the address of another host, for lists and for all requests. calls: method and
    path.
    """

    address: str = ""
    comments: dict[int, tuple[str | None, str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    refusals_of_writes: list[str] = field(default_factory=list)
    store_before_refusal: bool = False
    next_link: str = ""
    moved_to: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    last_id: int = 1000

    def add(self, login: str | None, body: str) -> int:
        self.last_id += 1
        self.comments[self.last_id] = (login, body)
        return self.last_id

    @contextmanager
    def up(self) -> Iterator["GitHubStub"]:
        stub = self

        class Handler(Exchange):
            def exchange(self) -> None:
                _answer(self, stub)

            def do_GET(self) -> None:  # noqa: N802 - http.server's name
                self.exchange()

            def do_PATCH(self) -> None:  # noqa: N802 - http.server's name
                self.exchange()

            def do_DELETE(self) -> None:  # noqa: N802 - http.server's name
                self.exchange()

        with serving(Handler) as port:
            self.address = f"http://127.0.0.1:{port}"
            yield self


def _answer(exchange: Exchange, stub: GitHubStub) -> None:
    headers = exchange.received_headers()
    body = exchange.received_body()
    url = urlsplit(exchange.path)
    stub.calls.append((exchange.command, exchange.path))
    token = headers.get("authorization", "").removeprefix("Bearer ")
    stub.tokens.append(token)
    if "user-agent" not in headers:
        _send(exchange, 403, {"message": "Request forbidden by administrative rules."})
    elif headers.get("x-github-api-version") not in VERSIONS:
        _send(exchange, 400, {"message": "The version is not supported.", "status": "400"})
    elif "application/vnd.github+json" not in headers.get("accept", ""):
        _send(exchange, 415, {"message": "Unsupported 'Accept' header", "status": "415"})
    elif token not in (TOKEN, READ_ONLY_TOKEN):
        _refuse(exchange, "a token that is not valid")
    elif stub.moved_to:
        _send(exchange, 301, {"message": "Moved Permanently"}, {"location": stub.moved_to})
    elif not (COMMENTS.fullmatch(url.path) or COMMENT.fullmatch(url.path)):
        _refuse(exchange, "a repository that the token may not see")
    elif exchange.command == "GET" and COMMENTS.fullmatch(url.path):
        if stub.refusals:
            _refuse(exchange, stub.refusals.pop(0))
        else:
            _list(exchange, stub, dict(parse_qsl(url.query)))
    elif token == READ_ONLY_TOKEN:
        _refuse(exchange, "a token that may only read")
    else:
        _write(exchange, stub, url.path, body)


def _list(exchange: Exchange, stub: GitHubStub, query: Mapping[str, str]) -> None:
    size = min(100, int(query.get("per_page", "30")))
    page = int(query.get("page", "1"))
    numbers = sorted(stub.comments)
    last = max(1, -(-len(numbers) // size))
    base = f"{stub.address}/repositories/{REPOSITORY_ID}/issues/{NUMBER}/comments"
    links = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
    shown = [
        f'<{base}?per_page={size}&page={number}>; rel="{name}"'
        for name, number in links.items()
        if 1 <= number <= last and not (name == "last" and page == last)
    ]
    headers = {"link": ", ".join(shown)} if last > 1 else {}
    if stub.next_link:
        headers = {"link": f'<{stub.next_link}>; rel="next"'}
    on_page = numbers[(page - 1) * size : page * size]
    _send(exchange, 200, [_document(stub, number) for number in on_page], headers)


def _write(exchange: Exchange, stub: GitHubStub, path: str, body: bytes) -> None:
    single = COMMENT.fullmatch(path)
    number = int(single[1]) if single else 0
    if single and number not in stub.comments:
        _refuse(exchange, "a repository that the token may not see")
        return
    if exchange.command == "DELETE" and single:
        del stub.comments[number]
        exchange.answer(204)
        return
    allowed = "PATCH" if single else "POST"
    try:
        document = json.loads(body)
        text = document["body"]
    except ValueError:
        _send(exchange, 400, {"message": "Problems parsing JSON", "status": "400"})
        return
    except (KeyError, TypeError):
        _send(exchange, 422, {"message": 'Invalid request.\n\n"body" wasn\'t supplied.'})
        return
    if exchange.command != allowed:
        _refuse(exchange, "a repository that the token may not see")
    elif len(text) > MAX_CHARACTERS:
        _refuse(exchange, "a body that is too long")
    elif not text.strip():
        _send(exchange, 422, {"message": "Validation Failed"})
    else:
        if not stub.refusals_of_writes or stub.store_before_refusal:
            number = number or stub.add(BOT, text)
            stub.comments[number] = (stub.comments[number][0], text)
        if stub.refusals_of_writes:
            _refuse(exchange, stub.refusals_of_writes.pop(0))
        else:
            _send(exchange, 200 if single else 201, _document(stub, number))


def _document(stub: GitHubStub, number: int) -> Mapping[str, object]:
    login, body = stub.comments[number]
    page = f"https://github.com/{REPOSITORY}/pull/{NUMBER}"
    return {
        "id": number,
        "url": f"{stub.address}/repos/{REPOSITORY}/issues/comments/{number}",
        "html_url": f"{page}#issuecomment-{number}",
        "user": None if login is None else {"login": login, "type": "Bot"},
        "body": body,
        "author_association": "CONTRIBUTOR",
    }


def _refuse(exchange: Exchange, name: str) -> None:
    refusal = REFUSALS[name]
    body = refusal["body"].encode()
    headers = {"content-type": "application/json; charset=utf-8", **refusal["headers"]}
    exchange.answer(refusal["status"], body, headers)


def _send(
    exchange: Exchange,
    status: int,
    document: object,
    headers: Mapping[str, str] | None = None,
) -> None:
    usual = {
        "content-type": "application/json; charset=utf-8",
        "x-ratelimit-limit": "1000",
        "x-ratelimit-remaining": "998",
    }
    exchange.answer(status, json.dumps(document).encode(), {**usual, **(headers or {})})
