"""Published refusals of providers, and how the product reads each: `refusals/*.yaml`.

An entry has the provider's status, headers and body, and its source. `right` is the class and
the reach of the failure, such as `quota@account`; `FAILURE_RULES` says from the class whose
fault it was and what the router does next. `then` is the request of the second try, for a
request `sent` with a refused field; null for a request without repair. `tells` says about
which later requests such a refusal tells something: `outright` about all requests to the
model's endpoint, `combination` about those with the same other fields. `used_up` marks headers
that say that nothing remains. `rule` names what decided: a code or words of a row of
`REFUSALS`, or the status.

The source decides what is right. An entry that the product reads wrongly keeps its `right` and
has the wrong reading in `now`, by way: `native` passes the provider's bytes on, `chat`
translates them from the vendor's protocol. Whoever mends the product deletes `now`. `stays`
says why the product cannot know better from such a refusal.

`python -m tests.world.refusal_corpus` prints the table; `--write` fills in `rule` and `now`.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from harness.frame.failures import FAILURE_RULES, FailureClass
from harness.routing.reliability.request_repair import find_repair, repair_request
from router.frame.failure import UpstreamFailed, error_object
from router.protocols.provider_failures import (
    error_codes,
    error_in_answer,
    refusal_failure,
    refusal_row,
)
from router.upstream.reply_reading import ReadReply
from router.upstream.translate.provider_errors import translate_refusal

FOLDER: Final = Path(__file__).parent / "refusals"
FILES: Final = tuple(sorted(FOLDER.glob("*.yaml")))
# Forms of bodies that rules must read, without a page: they are no published behaviour.
FORMS: Final = tuple(sorted((FOLDER.parent / "forms").glob("*.yaml")))
NO_RULE: Final = "no rule yet"
# The ways by which the router reads a refusal, by the provider's kind.
WAYS: Final[Mapping[str, Sequence[str]]] = {
    "anthropic": ("native", "chat"),
    "bedrock": ("chat",),
    "gemini": ("chat",),
    "vertex": ("chat",),
}
_NATIVE: Final = ("native",)
Json = dict[str, Any]


class Refusal(NamedTuple):
    """One entry. kind: the provider's kind, for the ways."""

    provider: str
    kind: str
    entry: Json

    @property
    def name(self) -> str:
        return f"{self.provider}: {self.entry['name']}"

    @property
    def ways(self) -> Sequence[str]:
        if "way" in self.entry:
            return (str(self.entry["way"]),)
        return WAYS.get(self.kind, _NATIVE)

    @property
    def body(self) -> bytes:
        body = self.entry.get("body", "")
        return body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def failure(self, way: str) -> UpstreamFailed:
        """Reads the refusal as the router does."""
        status = int(self.entry["status"])
        headers = {name: str(value) for name, value in self.entry.get("headers", {}).items()}
        body = self.body
        if status < 400:
            return error_in_answer(json.loads(body)["error"])
        if way == "chat":
            status, body = asyncio.run(self._translated(status, body))
        return refusal_failure(status, body, "application/json", headers)

    async def _translated(self, status: int, body: bytes) -> tuple[int, bytes]:
        given = self.entry.get("headers", {}).items()
        headers = [(name.lower().encode(), str(value).encode()) for name, value in given]
        reply = await translate_refusal(ReadReply(status, headers, body), self.kind)
        return reply.status, await reply.body()

    def readings(self) -> Mapping[str, str]:
        """Returns the class and the reach by way."""
        failed = {way: self.failure(way) for way in self.ways}
        return {way: f"{f.failure.value}@{f.reach.value}" for way, f in failed.items()}

    def wrong(self) -> Mapping[str, str]:
        """Returns the readings that are not right, by way."""
        right = self.entry["right"]
        return {way: found for way, found in self.readings().items() if found != right}

    def second_try(self) -> Json | None:
        """Returns the request of the second try; None for a refusal without repair."""
        sent = self.entry["sent"]
        repair = find_repair(error_object(self.body) or {}, sent)
        return None if repair is None else repair_request(sent, [repair])[0]

    def rule(self) -> str:
        """Names what decides in the first way; NO_RULE for a wrong reading by the status."""
        failed = self.failure(self.ways[0])
        status = failed.status or int(self.entry["status"])
        error = error_object(failed.body)
        rows = {status: 0} if status >= 400 else {400: 0, 429: 0}
        found = next((row for s in rows if (row := _row_words(error, s))), "")
        if found:
            return found
        wrong = bool(self.wrong()) or ("then" in self.entry and not self.repaired())
        return NO_RULE if wrong else f"status {status}"

    def repaired(self) -> bool:
        return bool(self.second_try() == self.entry["then"])


def _row_words(error: Mapping[str, object] | None, status: int) -> str:
    """Returns the code or the words by which a row of the table fits; empty without one."""
    row = refusal_row(error, status) if error is not None else None
    if row is None or error is None:
        return ""
    codes = error_codes(error)
    for code in sorted(codes & row.codes):
        return f"code {code}"
    hit = row.words.search(str(error.get("message") or "")) if row.words is not None else None
    return f"words {hit[0][:60].strip()}" if hit else ""


def read_corpus(files: Sequence[Path] = FILES) -> Iterator[Refusal]:
    """Yields the entries of all files."""
    for file in files:
        found = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for entry in found["refusals"]:
            yield Refusal(found["provider"], found["kind"], entry)


def next_step(right: str) -> str:
    """Describes whose fault a class is, and what the router does next."""
    rule = FAILURE_RULES[FailureClass(right.partition("@")[0])]
    return f"{rule.fault.value}; again: {rule.same_target}; next: {rule.next_target}"


_ORDER: Final = (
    "name",
    "source",
    "way",
    "status",
    "headers",
    "body",
    "right",
    "now",
    "stays",
    "sent",
    "then",
    "tells",
    "repair_now",
    "used_up",
    "rule",
)


def _written(found: Json) -> str:
    lines = [f"provider: {found['provider']}", f"kind: {found['kind']}", "refusals:"]
    for entry in found["refusals"]:
        for name in _ORDER:
            if name in entry:
                before = "- " if name == "name" else "  "
                value = json.dumps(entry[name], ensure_ascii=False)
                lines.append(f"{before}{name}: {value}")
    return "\n".join([*lines, ""])


def write_files() -> None:
    """Fills in `rule`, `now` and `repair_now`, and writes the files in one form."""
    for file in (*FILES, *FORMS):
        found = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for entry in found["refusals"]:
            refusal = Refusal(found["provider"], found["kind"], entry)
            for name in ("now", "repair_now"):
                entry.pop(name, None)
            if wrong := refusal.wrong():
                entry["now"] = dict(wrong)
            if "then" in entry and not refusal.repaired():
                entry["repair_now"] = refusal.second_try()
            entry["rule"] = refusal.rule()
        file.write_text(_written(found), "utf-8")


def table() -> Iterator[str]:
    """Yields the entries and the wrong ones by provider, and then each wrong one."""
    entries = list(read_corpus())
    bad = [e for e in entries if e.entry.get("now") or "repair_now" in e.entry]
    yield f"{'provider':<14}{'entries':>8}{'wrong':>7}"
    for provider in sorted({e.provider for e in entries}):
        own = [e for e in entries if e.provider == provider]
        yield f"{provider:<14}{len(own):>8}{sum(e in bad for e in own):>7}"
    yield f"{'all':<14}{len(entries):>8}{len(bad):>7}\n"
    for e in bad:
        right = e.entry["right"]
        now = ", ".join(sorted(set(e.entry.get("now", {}).values()))) or "no right repair"
        yield f"{e.name}\n  now {now}; right {right} ({next_step(right)})"


if __name__ == "__main__":
    if "--write" in sys.argv:
        write_files()
    sys.stdout.write("\n".join(table()) + "\n")
