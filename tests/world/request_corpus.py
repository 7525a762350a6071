"""Published requests of clients, and what the router sends to each kind of target for them:
`requests/*.yaml`.

An entry has the client's `body` for an `endpoint`, its `headers`, and its source. `sends` says
by target (`TARGETS`) what must be true of the request that the target gets: by path such as
`tools.0.name`, the value; null for a field that must be absent. `@path` is the provider's path,
`@header.NAME` a header, and `@refused` the field for which the router refuses the request
before it calls anybody. The rest of the request may be as it is.

The source decides what is right. `now` has the values that are wrong today, by target and
path. Whoever mends the product deletes them.

`python -m tests.world.request_corpus` prints the table; `--write` fills in `now`.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from harness.providers.target import Target
from harness.routing.table import Route
from router.upstream.transport import UpstreamRequest
from tests.support.providers.scripted_transport import ScriptedTurn
from tests.support.router.asgi_router import AUTH, Door
from tests.support.router.live_router import provider, snapshot

FOLDER: Final = Path(__file__).parent / "requests"
FILES: Final = tuple(sorted(FOLDER.glob("*.yaml")))
Json = dict[str, Any]
# By name, which is also that of the route: the provider's kind, and the model.
TARGETS: Final[Mapping[str, tuple[str, str]]] = {
    "openai": ("openai", "gpt-5.4"),
    "gpt-5": ("openai", "gpt-5"),
    "gpt-5.6": ("openai", "gpt-5.6"),
    "gpt-4o": ("openai", "gpt-4o"),
    "anthropic": ("anthropic", "claude-sonnet-4-5-20250929"),
    "opus": ("anthropic", "claude-opus-4-7"),
    "bedrock": ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    "gemini": ("gemini", "gemini-2.5-flash"),
    "mistral": ("mistral", "mistral-large-latest"),
    "groq": ("groq", "llama-3.3-70b-versatile"),
    "deepseek": ("deepseek", "deepseek-chat"),
    "vllm": ("vllm", "qwen3-32b"),
    "ollama": ("ollama", "llama3.1"),
}
_PATHS: Final = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
# A refusal that the router neither repairs nor repeats.
_SEEN: Final = ScriptedTurn(
    400, steps=(b'{"error": {"message": "seen", "type": "invalid_request_error"}}',)
)
_ABSENT: Final = "absent"


class Asked(NamedTuple):
    """One entry of a file."""

    client: str
    entry: Json

    @property
    def name(self) -> str:
        return f"{self.client}: {self.entry['name']}"

    def wrong(self, sent: Mapping[str, Json]) -> Mapping[str, Json]:
        """Returns the values that are not right, by target and path.

        Args:
            sent: by target, the request as `read_sent` returns it.
        """
        found: dict[str, Json] = {}
        for target, wanted in self.entry["sends"].items():
            for path, value in wanted.items():
                actual = value_at(sent[target], path)
                right = _ABSENT if value is None else value
                if actual != right:
                    found.setdefault(target, {})[path] = actual
        return found


def value_at(sent: Json, path: str) -> Any:
    """Returns the value at a path; `_ABSENT` without one. A list's index is a number."""
    if path.startswith("@"):
        return sent.get(path, _ABSENT)
    place: Any = sent.get("body", {})
    for step in path.split("."):
        if isinstance(place, list) and step.lstrip("-").isdecimal() and int(step) < len(place):
            place = place[int(step)]
        elif isinstance(place, dict) and step in place:
            place = place[step]
        else:
            return _ABSENT
    return place


class Sender:
    """A router before scripted providers of all kinds."""

    def __init__(self, folder: Path) -> None:
        first = snapshot("http://127.0.0.1:1/v1")
        made = {name: Target(name, model) for name, (_, model) in TARGETS.items()}
        routes = {name: Route(name, 1, target.id) for name, target in made.items()}
        table = replace(first.table, routes=routes, targets={t.id: t for t in made.values()})
        providers = {
            name: provider("http://127.0.0.1:1/v1", name, kind=kind)
            for name, (kind, _) in TARGETS.items()
        }
        first = replace(first, table=table, providers=providers)
        self._door = Door(folder, self._answer, first=first, moves=True)

    def _answer(self, _: UpstreamRequest) -> ScriptedTurn:
        return _SEEN

    async def read_sent(self, entry: Json, target: str) -> Json:
        """Sends a request to a target's route. Returns what the target got."""
        seen = self._door.transport.seen
        seen.clear()
        body = json.dumps({**entry["body"], "model": target}).encode()
        headers = tuple(
            (name.lower().encode(), str(value).encode())
            for name, value in entry.get("headers", {}).items()
        )
        path = _PATHS[entry.get("endpoint", "chat")]
        status, _, reply = await self._door.call(path, body, headers=(AUTH, *headers))
        if not seen:
            error = json.loads(reply)["error"]
            return {"@status": status, "@refused": error.get("param") or error["message"]}
        request = seen[0]
        return {
            "body": json.loads(request.body),
            "@path": request.path,
            **{f"@header.{k.decode()}": v.decode() for k, v in request.headers},
        }


@cache
def read_all_sent() -> Mapping[str, Mapping[str, Json]]:
    """Returns by entry and target what the target got."""

    async def send() -> Mapping[str, Mapping[str, Json]]:
        with tempfile.TemporaryDirectory() as folder:
            sender = Sender(Path(folder))
            return {
                asked.name: {
                    target: await sender.read_sent(asked.entry, target)
                    for target in asked.entry["sends"]
                }
                for asked in read_corpus()
            }

    return asyncio.run(send())


def read_corpus(files: Sequence[Path] = FILES) -> Iterator[Asked]:
    """Yields the entries of all files."""
    for file in files:
        found = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for entry in found["requests"]:
            yield Asked(found["client"], entry)


_ORDER: Final = ("source", "endpoint", "headers", "body", "sends", "now")


def _lines(found: Json) -> Iterable[str]:
    yield f"client: {json.dumps(found['client'])}"
    yield "requests:"
    for entry in found["requests"]:
        yield f"- name: {json.dumps(entry['name'], ensure_ascii=False)}"
        for name in _ORDER:
            if name in ("sends", "now") and name in entry:
                yield f"  {name}:"
                for target, wanted in entry[name].items():
                    yield f"    {target}: {json.dumps(wanted, ensure_ascii=False)}"
            elif name in entry:
                yield f"  {name}: {json.dumps(entry[name], ensure_ascii=False)}"
    yield ""


def write_files() -> None:
    """Fills in `now`, and writes the files in one form."""
    sent = read_all_sent()
    for file in FILES:
        found = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for entry in found["requests"]:
            entry.pop("now", None)
            asked = Asked(found["client"], entry)
            if wrong := asked.wrong(sent[asked.name]):
                entry["now"] = wrong
        file.write_text("\n".join(_lines(found)), "utf-8")


def table() -> Iterator[str]:
    """Yields the entries and the wrong ones by client, and then each wrong one."""
    entries = list(read_corpus())
    yield f"{'client':<14}{'entries':>8}{'wrong':>7}"
    for client in sorted({e.client for e in entries}):
        own = [e for e in entries if e.client == client]
        yield f"{client:<14}{len(own):>8}{sum('now' in e.entry for e in own):>7}"
    yield f"{'all':<14}{len(entries):>8}{sum('now' in e.entry for e in entries):>7}\n"
    for e in entries:
        if "now" in e.entry:
            sends, now = e.entry["sends"], e.entry["now"]
            wanted = {t: {path: sends[t][path] for path in paths} for t, paths in now.items()}
            yield f"{e.name}\n  now {e.entry['now']}\n  right {wanted}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        write_files()
    sys.stdout.write("\n".join(table()) + "\n")
