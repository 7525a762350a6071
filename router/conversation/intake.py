"""Defines which history a kind of target accepts, the ids of tool calls, and marks of makers.

A maker is a target that signed or encrypted a piece of an answer; only it can read that
piece. The router marks such pieces in answers, and clients send them back unchanged. So a
later request shows which target can read them, although the router stores no conversation.
`chat_history` and `native_histories` apply these rules to a body.
"""

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

# Providers' own signatures are base64, so they contain no full stop.
_MARK_PATTERN: Final = re.compile(r"sg\.([a-z2-7]{8})\.")
# The beginning of a mark in a body. Inside a text, a backslash precedes each quote.
QUOTED_MARK: Final = b'"sg.'
# The `format` of thinking in a chat that is the encrypted reasoning of a response.
RESPONSE_FORMAT: Final = "openai-responses-v1"
# Part of the ids that a translation writes. No provider stores items with these ids.
OWN_ID: Final = "sg_"


class MarkedPiece(NamedTuple):
    """A piece of an answer without its mark. maker: empty if unknown."""

    maker: str
    value: str


def maker_of(target: Target) -> str:
    """Returns a target's name as a maker.

    The name depends on the prompt addendum, because a provider may sign the prompt, too.
    """
    patch = target.request_patch
    identity = f"{target.provider}\n{target.model}\n{patch.prompt_addendum}"
    return (
        b32encode(sha256(identity.encode("utf-8", "surrogatepass")).digest())[:8]
        .decode()
        .lower()
    )


def mark_piece(value: str, maker: str) -> str:
    """Returns a piece with its maker's mark. A mark has full stops, a signature has none."""
    return f"sg.{maker}.{value}"


def read_mark(piece: object) -> MarkedPiece:
    """Reads a piece's maker. A client may have joined several marked pieces into one."""
    if not isinstance(piece, str):
        return MarkedPiece("", "")
    mark = _MARK_PATTERN.match(piece)
    if mark is None:
        return MarkedPiece("", piece)
    return MarkedPiece(mark[1], piece.replace(mark[0], ""))


def seal_thoughts(blocks: Sequence[Mapping[str, object]]) -> str:
    """Packs a chat's marked thinking into one piece of its maker. Empty without a mark.

    Other protocols carry thinking as one opaque text; `open_thoughts` unpacks it.
    """
    values = [value for block in blocks for value in block.values()]
    maker = next((maker_name for value in values if (maker_name := read_mark(value).maker)), "")
    if not maker:
        return ""
    raw = json.dumps(blocks, separators=(",", ":")).encode()
    return mark_piece(urlsafe_b64encode(raw).decode(), maker)


def open_thoughts(piece: object) -> list[dict[str, object]]:
    """Returns the blocks that `seal_thoughts` packed; empty for any other piece."""
    marked_piece = read_mark(piece)
    try:
        parsed = (
            json.loads(urlsafe_b64decode(marked_piece.value)) if marked_piece.maker else None
        )
    except (ValueError, RecursionError):
        return []
    blocks = parsed if isinstance(parsed, list) else []
    return [block for block in blocks if isinstance(block, dict)]


def is_made_by(text: str, maker: str) -> bool:
    """Returns whether a body has a piece with this maker's mark. An empty maker has no mark."""
    return bool(maker) and (f"sg.{maker}." in text or f"_{OWN_ID}{maker}_" in text)


def own_id(
    prefix: str,
    maker: str,
    rest: str,
) -> str:
    """Builds the id of an item that a translation writes.

    Args:
        maker: the item's only reader.
    """
    return f"{prefix}_{OWN_ID}{maker}_{rest}"


def maker_of_id(id_: object) -> str:
    """Returns the maker in an id that a translation wrote; empty for other ids."""
    if not isinstance(id_, str) or not is_own_id(id_):
        return ""
    return id_.partition(f"_{OWN_ID}")[2].partition("_")[0]


def is_own_id(id_: object) -> bool:
    """Returns whether a translation wrote this id, such as `rs_sg_…`."""
    return isinstance(id_, str) and id_.partition("_")[2].startswith(OWN_ID)


Json = dict[str, Any]

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_MEMBER: Final = re.compile(rb'"(?:tool_call_id|tool_use_id|call_id)"\s*:\s*"([^"]*)"')
# The prefix of an answer's id, by its content field.
_ANSWER_PREFIXES: Final = {
    "choices": "chatcmpl",
    "content": "msg",
    "output": "resp",
}
_CALL_ITEMS: Final = ("custom_tool_call", "function_call")
_RESULT_ID_FIELDS: Final = (b'"tool_call_id"', b'"tool_use_id"', b'"call_id"')


class IdRule(NamedTuple):
    """The ids of tool calls that a kind of target accepts, and how a new id is written."""

    pattern: re.Pattern[str]
    length: int  # length of a new id
    prefix: str = ""
    unique: bool = False  # ids must be unique in the whole history

    def fits(self, id_: str) -> bool:
        return self.pattern.fullmatch(id_) is not None

    def suits(self, body: bytes) -> bool:
        """Returns whether the target accepts all ids of a body, quickly, without parsing it."""
        if not any(name in body for name in _RESULT_ID_FIELDS):
            return True
        ids = _ID_MEMBER.findall(body)
        if self.unique and len(set(ids)) < len(ids):
            return False
        return all(self.fits(id_.decode("utf-8", "replace")) for id_ in ids)


class CallIds:
    """Rewrites the ids of a history's tool calls for a target.

    An acceptable id stays. The same history always gets the same new ids.
    """

    def __init__(self, rule: IdRule) -> None:
        self._rule = rule
        self._used_ids: set[str] = set()
        self._call_counts: dict[str, int] = defaultdict(int)
        self._open_calls: dict[str, deque[str]] = defaultdict(deque)
        self._result_ids: dict[str, str] = {}

    def begin_turn(self) -> None:
        """Begins an answer's calls: results that follow belong to these calls only."""
        self._open_calls.clear()

    def of_call(self, old_id: object) -> str:
        """Returns the id of the next call: a new id if the target refuses the old one."""
        client_id = old_id if isinstance(old_id, str) else ""
        number = self._call_counts[client_id]
        self._call_counts[client_id] += 1
        new_id = client_id
        while not self._rule.fits(new_id) or new_id in self._used_ids:
            new_id = _write_id(self._rule, f"{client_id}\n{number}")
            number += 1
        self._used_ids.add(new_id)
        self._open_calls[client_id].append(new_id)
        return new_id

    def of_result(self, old_id: object) -> str:
        """Returns the id of the next result. Calls with one old id get results in order."""
        client_id = old_id if isinstance(old_id, str) else ""
        if self._open_calls[client_id]:
            self._result_ids[client_id] = self._open_calls[client_id].popleft()
        return self._result_ids.get(client_id, client_id)


def _write_id(rule: IdRule, seed: str) -> str:
    number = int.from_bytes(sha256(seed.encode("utf-8", "surrogatepass")).digest())
    digits: list[str] = []
    while len(digits) < rule.length - len(rule.prefix):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return rule.prefix + "".join(digits)


class AnswerIds:
    """Makes an answer's ids unique, also within the client's request. No id stays empty.

    Some servers number the calls of every answer from 0.
    """

    def __init__(self, request_body: str) -> None:
        self._request_body = request_body
        self._used_ids: set[str] | None = None
        self._sent_ids: dict[str, dict[str, str]] = {}  # by the provider's id and the place
        self._answer_id = ""

    def mend(self, answer: Json, *, is_repeated: bool = False) -> list[str]:
        """Mends a complete answer; returns the changed members.

        Args:
            is_repeated: the client has already received these parts in a stream.
        """
        changed = []
        for name, prefix in _ANSWER_PREFIXES.items():
            calls = list_objects(answer.get(name))
            if name == "choices":
                messages = list_objects([choice.get("message") for choice in calls])
                calls = [call for m in messages for call in list_objects(m.get("tool_calls"))]
            changes = [
                self.mend_call(call, position, is_repeated=is_repeated)
                for position, call in enumerate(calls)
            ]
            if any(changes):
                changed.append(name)
            if name in answer and not answer.get("id", True):
                answer["id"] = self.of_answer(prefix)
                changed.append("id")
        return changed

    def mend_call(
        self,
        call: Json,
        place: object,
        *,
        is_repeated: bool = False,
    ) -> bool:
        """Gives a call an id, a name without tokens, and arguments as text.

        Returns whether the call changed.
        """
        kind = str(call.get("type"))
        function = call.get("function")
        name = "call_id" if kind in _CALL_ITEMS else "id"
        if name == "id" and kind != "tool_use" and "function" not in call:
            return False
        old_id = call.get(name)
        call[name] = self.of_call(old_id, place, is_repeated=is_repeated)
        holder = function if isinstance(function, dict) else call
        is_object = isinstance(holder.get("arguments"), dict)
        if is_object:
            holder["arguments"] = arguments_text(holder["arguments"])
        tool_name = holder.get("name")
        is_unclean = isinstance(tool_name, str) and "<|" in tool_name
        if is_unclean:
            holder["name"] = clean_name(tool_name)
        return is_object or is_unclean or call[name] != old_id

    def of_answer(self, prefix: str) -> str:
        """Returns an id for an answer without id. All events of a stream get the same id."""
        self._answer_id = self._answer_id or f"{prefix}_{token_hex(12)}"
        return self._answer_id

    def of_call(
        self,
        old_id: object,
        place: object,
        *,
        is_repeated: bool = False,
    ) -> str:
        """Returns the id of a call in the answer, unique also within the request.

        Args:
            place: the call's place in the answer. All events of a stream with it are one call.
            is_repeated: the call was in the stream, so its id must not change.
        """
        if self._used_ids is None:
            request_ids = _ID_MEMBER.findall(self._request_body.encode())
            self._used_ids = {id_.decode("utf-8", "replace") for id_ in request_ids}
        provider_id = old_id if isinstance(old_id, str) else ""
        place = str(place)
        sent_ids = self._sent_ids.setdefault(provider_id, {})
        if is_repeated and sent_ids and place not in sent_ids:
            return next(iter(sent_ids.values()))
        if place not in sent_ids:
            base_id = new_id = provider_id or f"call_{token_hex(12)}"
            number = len(self._used_ids)
            while new_id in self._used_ids:
                new_id = f"{base_id}_{number}"
                number = number + 1
            self._used_ids.add(new_id)
            sent_ids[place] = new_id
        return sent_ids[place]


def arguments_text(arguments: object) -> object:
    """Returns a call's arguments as JSON text, if a server sends them as an object."""
    if isinstance(arguments, Mapping):
        return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return arguments


def clean_name(name: object) -> object:
    """Returns a tool's name without a token of the model's template.

    gpt-oss writes its channel into the name, and some servers leave it there:
    `json<|channel|>commentary`. No tool's own name has these characters.
    """
    return name.partition("<|")[0] or name if isinstance(name, str) else name


# Fields that only a conversation's first provider understands: cache marks, signed thinking.
FOREIGN: Final = (
    "cache_control",
    "thinking_blocks",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
)
# Fields that only OpenAI knows and that no answer depends on.
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
    """The parts of a history that one kind accepts.

    refused: names of fields that the kind refuses outside texts and schemas.
    """

    call_ids: IdRule | None = None
    tool_names: re.Pattern[str] | None = None
    longest_name: int = 64
    demands_reasoning: bool = False  # each answer with a tool call must have its reasoning
    returns_reasoning: bool = False  # the target accepts its own reasoning
    reads_file_ids: bool = True
    knows_developer: bool = True  # the role of OpenAI's newer models
    answers_after_result: bool = False  # between a tool's result and a user's message
    # The members of a message that the kind accepts; empty if it accepts all.
    members: frozenset[str] = frozenset()
    refused: tuple[str, ...] = ()
    # `refused` as JSON keys. In texts, quotes are escaped, so texts do not match.
    quoted: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        quoted = tuple(f'"{name}":'.encode() for name in self.refused)
        object.__setattr__(self, "quoted", quoted)


_MESSAGE_MEMBERS: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_OPENAI_NAMES: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPENAI: Final = HistoryIntake(
    IdRule(re.compile(r"(?s).{1,40}"), 29, "call_", unique=True),
    _OPENAI_NAMES,
    refused=(*FOREIGN, "client_metadata"),
)
_GOOGLE: Final = HistoryIntake(
    IdRule(re.compile(r"(?s).+"), 29, "call_", unique=True),
    re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"),
    reads_file_ids=False,
)
INTAKES: Final[Mapping[str, HistoryIntake]] = {
    "openai": _OPENAI,
    "azure_openai": _OPENAI,
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
    "gemini": _GOOGLE,
    "vertex": _GOOGLE,
    "groq": HistoryIntake(
        knows_developer=False,
        members=_MESSAGE_MEMBERS | {"reasoning", "annotations", "executed_tools"},
        refused=(*FOREIGN, *OPENAI_ALONE),
    ),
    "mistral": HistoryIntake(
        IdRule(re.compile(r"[A-Za-z0-9]{9}"), 9, unique=True),
        _OPENAI_NAMES,
        knows_developer=False,
        answers_after_result=True,
        members=_MESSAGE_MEMBERS | {"prefix"},
        refused=(*FOREIGN, *OPENAI_ALONE, "user", "metadata"),
    ),
    "deepseek": HistoryIntake(
        knows_developer=False, demands_reasoning=True, returns_reasoning=True
    ),
}
TAKES_ALL: Final = HistoryIntake(returns_reasoning=True)
# The rule for a response's `call_id` at OpenAI.
RESPONSE_CALL_IDS: Final = IdRule(re.compile(r"(?s).{1,64}"), 29, "call_")

NO_NAMES: Final[Mapping[str, str]] = {}


class MovedBody(NamedTuple):
    """A body, ready to send.

    dropped: removed fields, as `x-swapproof-degraded` names them.
    tool_names: the target's name of a tool → the client's.
    """

    body: bytes
    dropped: tuple[str, ...] = ()
    tool_names: Mapping[str, str] = NO_NAMES
