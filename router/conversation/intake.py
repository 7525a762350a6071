"""What of a history a target takes: the table by kind, ids of tool calls, marks of makers."""

import json
import re
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_hex
from typing import Any, Final, NamedTuple

from harness.providers.target import Target
from router.frame.body import list_objects

# No provider's own signature has a full stop: they are base64.
_MARK: Final = re.compile(r"sg\.([a-z2-7]{8})\.")
# Begins a mark in a body; inside a text a quote has a backslash before it.
QUOTED_MARK: Final = b'"sg.'
# Of the ids that a translation writes: no provider stores what they name.
OWN_ID: Final = "sg_"


class MarkedPiece(NamedTuple):
    """A piece as its maker wrote it. maker: empty where it is not known."""

    maker: str
    value: str


def maker_of(target: Target) -> str:
    """Names a target as the maker of what it writes. Another addendum to the prompt is another
    maker: a provider may bind what it signs to the prompt.
    """
    patch = target.request_patch
    named = f"{target.provider}\n{target.model}\n{patch.prompt_addendum}"
    return (
        b32encode(sha256(named.encode("utf-8", "surrogatepass")).digest())[:8].decode().lower()
    )


def mark_piece(value: str, maker: str) -> str:
    return f"sg.{maker}.{value}"


def read_mark(piece: object) -> MarkedPiece:
    """Reads who made a piece. A client may have joined it of several, each with its mark."""
    if not isinstance(piece, str):
        return MarkedPiece("", "")
    found = _MARK.match(piece)
    if found is None:
        return MarkedPiece("", piece)
    return MarkedPiece(found[1], piece.replace(found[0], ""))


def seal_thoughts(blocks: Sequence[Mapping[str, object]]) -> str:
    """Writes marked thoughts of a chat as one piece of their maker's; else empty."""
    values = [value for block in blocks for value in block.values()]
    maker = next((found for value in values if (found := read_mark(value).maker)), "")
    if not maker:
        return ""
    raw = json.dumps(blocks, separators=(",", ":")).encode()
    return mark_piece(urlsafe_b64encode(raw).decode(), maker)


def open_thoughts(piece: object) -> list[dict[str, object]]:
    marked = read_mark(piece)
    try:
        found = json.loads(urlsafe_b64decode(marked.value)) if marked.maker else None
    except (ValueError, RecursionError):
        return []
    blocks = found if isinstance(found, list) else []
    return [block for block in blocks if isinstance(block, dict)]


def is_made_by(text: str, maker: str) -> bool:
    return bool(maker) and (f"sg.{maker}." in text or f"_{OWN_ID}{maker}_" in text)


def own_id(prefix: str, maker: str, rest: str) -> str:
    """Builds the id of an item that a translation writes. maker: who gets it back."""
    return f"{prefix}_{OWN_ID}{maker}_{rest}"


def maker_of_id(id_: object) -> str:
    if not isinstance(id_, str) or not is_own_id(id_):
        return ""
    return id_.partition(f"_{OWN_ID}")[2].partition("_")[0]


def is_own_id(id_: object) -> bool:
    """Tells whether a translation of ours wrote this id, such as `rs_sg_…`."""
    return isinstance(id_, str) and id_.partition("_")[2].startswith(OWN_ID)


Json = dict[str, Any]

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_IDS: Final = re.compile(rb'"(?:tool_call_id|tool_use_id|call_id)"\s*:\s*"([^"]*)"')
# By the member that has what an answer says, what begins its id.
_PREFIXES: Final = {"choices": "chatcmpl", "content": "msg", "output": "resp"}
_ITEMS: Final = ("custom_tool_call", "function_call")
_RESULT_IDS: Final = (b'"tool_call_id"', b'"tool_use_id"', b'"call_id"')


class IdRule(NamedTuple):
    pattern: re.Pattern[str]
    length: int  # of an id that is written anew
    prefix: str = ""
    unique: bool = False  # over the whole history

    def fits(self, id_: str) -> bool:
        return self.pattern.fullmatch(id_) is not None

    def suits(self, body: bytes) -> bool:
        """Tells quickly, of a body as it came, that all its ids are taken as they are."""
        if not any(name in body for name in _RESULT_IDS):
            return True
        found = _IDS.findall(body)
        if self.unique and len(set(found)) < len(found):
            return False
        return all(self.fits(id_.decode("utf-8", "replace")) for id_ in found)


class CallIds:
    def __init__(self, rule: IdRule) -> None:
        self._rule = rule
        self._used: set[str] = set()
        self._seen: dict[str, int] = defaultdict(int)
        self._open: dict[str, deque[str]] = defaultdict(deque)
        self._answered: dict[str, str] = {}

    def begin_turn(self) -> None:
        self._open.clear()

    def of_call(self, given: object) -> str:
        old = given if isinstance(given, str) else ""
        number = self._seen[old]
        self._seen[old] += 1
        new = old
        while not self._rule.fits(new) or new in self._used:
            new = _written(self._rule, f"{old}\n{number}")
            number += 1
        self._used.add(new)
        self._open[old].append(new)
        return new

    def of_result(self, given: object) -> str:
        """Returns the id of the next result: of several calls with one id, in their order."""
        old = given if isinstance(given, str) else ""
        if self._open[old]:
            self._answered[old] = self._open[old].popleft()
        return self._answered.get(old, old)


def _written(rule: IdRule, seed: str) -> str:
    number = int.from_bytes(sha256(seed.encode("utf-8", "surrogatepass")).digest())
    digits: list[str] = []
    while len(digits) < rule.length - len(rule.prefix):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return rule.prefix + "".join(digits)


class AnswerIds:
    """No id is empty, or that of another call, here or in the request: some servers number the
    calls of each answer from 0. request_body: the client's.
    """

    def __init__(self, request_body: str) -> None:
        self._request_body = request_body
        self._taken: set[str] | None = None
        self._sent: dict[str, dict[str, str]] = {}  # by the id that was given and the place
        self._own = ""

    def mend(self, answer: Json, *, again: bool = False) -> list[str]:
        """Mends a whole answer; returns the changed members. again: its parts came before."""
        changed = []
        for name, prefix in _PREFIXES.items():
            calls = list_objects(answer.get(name))
            if name == "choices":
                messages = list_objects([choice.get("message") for choice in calls])
                calls = [call for m in messages for call in list_objects(m.get("tool_calls"))]
            mended = [self.mend_call(call, at, again=again) for at, call in enumerate(calls)]
            if any(mended):
                changed.append(name)
            if name in answer and not answer.get("id", True):
                answer["id"] = self.of_answer(prefix)
                changed.append("id")
        return changed

    def mend_call(self, call: Json, place: object, *, again: bool = False) -> bool:
        """Gives a call an id, and arguments as text; tells whether that changed it."""
        kind, function = str(call.get("type")), call.get("function")
        name = "call_id" if kind in _ITEMS else "id"
        if name == "id" and kind != "tool_use" and "function" not in call:
            return False
        given = call.get(name)
        call[name] = self.of_call(given, place, again=again)
        holder = function if isinstance(function, dict) else call
        is_object = isinstance(holder.get("arguments"), dict)
        if is_object:
            holder["arguments"] = arguments_text(holder["arguments"])
        return is_object or call[name] != given

    def of_answer(self, prefix: str) -> str:
        """Returns the id of an answer that has none; for each part of a stream the same."""
        self._own = self._own or f"{prefix}_{token_hex(12)}"
        return self._own

    def of_call(self, given: object, place: object, *, again: bool = False) -> str:
        if self._taken is None:
            found = _IDS.findall(self._request_body.encode())
            self._taken = {id_.decode("utf-8", "replace") for id_ in found}
        own, place = given if isinstance(given, str) else "", str(place)
        sent = self._sent.setdefault(own, {})
        if again and sent and place not in sent:
            return next(iter(sent.values()))
        if place not in sent:
            base = new = own or f"call_{token_hex(12)}"
            number = len(self._taken)
            while new in self._taken:
                new, number = f"{base}_{number}", number + 1
            self._taken.add(new)
            sent[place] = new
        return sent[place]


def arguments_text(given: object) -> object:
    if isinstance(given, Mapping):
        return json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    return given


# A conversation that began elsewhere carries what only its first provider understands: marks
# for a cache, signed thoughts.
FOREIGN: Final = (
    "cache_control",
    "thinking_blocks",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
)
# What OpenAI alone knows of a request, and no answer depends on.
OPENAI_ALONE: Final = (
    "client_metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "verbosity",
)


@dataclass(frozen=True, slots=True)
class HistoryIntake:
    """What one kind takes. refused: names of fields, anywhere but in a text or a schema."""

    call_ids: IdRule | None = None
    tool_names: re.Pattern[str] | None = None
    longest_name: int = 64
    demands_reasoning: bool = False  # of each answer that called a tool
    returns_reasoning: bool = False  # it takes its own back
    reads_file_ids: bool = True
    refused: tuple[str, ...] = ()
    # As a body has those: inside a text each quote has a backslash before it.
    quoted: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        quoted = tuple(f'"{name}":'.encode() for name in self.refused)
        object.__setattr__(self, "quoted", quoted)


_OPENAI_NAMES: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPENAIS: Final = HistoryIntake(
    IdRule(re.compile(r"(?s).{1,40}"), 29, "call_", unique=True),
    _OPENAI_NAMES,
    refused=(*FOREIGN, "client_metadata"),
)
_GOOGLES: Final = HistoryIntake(
    IdRule(re.compile(r"(?s).+"), 29, "call_", unique=True),
    re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"),
    reads_file_ids=False,
)
INTAKES: Final[Mapping[str, HistoryIntake]] = {
    "openai": _OPENAIS,
    "azure_openai": _OPENAIS,
    "anthropic": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9_-]+"), 30, "toolu_", unique=True),
        re.compile(r"[A-Za-z0-9_-]{1,128}"),
        128,
        reads_file_ids=False,
    ),
    "bedrock": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9_-]{1,64}"), 30, "toolu_", unique=True),
        re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}"),
        reads_file_ids=False,
    ),
    "gemini": _GOOGLES,
    "vertex": _GOOGLES,
    "groq": HistoryIntake(refused=(*FOREIGN, *OPENAI_ALONE)),
    "mistral": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9]{9}"), 9, unique=True),
        _OPENAI_NAMES,
        refused=(*FOREIGN, *OPENAI_ALONE, "user"),
    ),
    "deepseek": HistoryIntake(demands_reasoning=True, returns_reasoning=True),
}
TAKES_ALL: Final = HistoryIntake(returns_reasoning=True)
# Of a response's `call_id`, at OpenAI.
RESPONSE_CALL_IDS: Final = IdRule(re.compile(r"(?s).{1,64}"), 29, "call_")

NO_NAMES: Final[Mapping[str, str]] = {}


class MovedBody(NamedTuple):
    """A body, ready to send. dropped: fields, as `x-swapgate-degraded` names them. tool_names:
    as the target knows them → as the client calls them.
    """

    body: bytes
    dropped: tuple[str, ...] = ()
    tool_names: Mapping[str, str] = NO_NAMES
