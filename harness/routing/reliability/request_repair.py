"""Derives from a provider's refusal how the router repairs a request. A repair keeps the
messages' texts, tools and formats. For a target's template it may change the roles of turns,
join turns, or insert an answer. Pure.

The patterns are the words of known providers; a refusal in other words has no repair. The
router applies and remembers repairs in `router.upstream.learned_repairs`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

Turns = list[Any]
# Inserted between a tool's result and the user's next turn.
ANSWER: Final = {"role": "assistant", "content": "OK."}


class TurnOrder(StrEnum):
    """An order of turns that some targets' templates demand."""

    SYSTEM_FIRST = "system_first"  # later system turns become user turns
    NO_SYSTEM = "no_system"  # all system turns become user turns
    ALTERNATE = "alternate"  # user and model alternate; a model turn follows a tool's result


def _pattern(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


_REFUSED: Final[Mapping[TurnOrder, re.Pattern[str]]] = {
    # From Gemma's template on any server, and Bedrock's older models.
    TurnOrder.NO_SYSTEM: _pattern(
        "system role not supported",
        "support system (messages|prompts|instructions)",
        "developer instruction is not enabled",
    ),
    # From Anthropic's older models, compatible servers and templates, for later system turns.
    TurnOrder.SYSTEM_FIRST: _pattern(
        r"role\W+system\W+(is not supported|the messages api)",
        "system messages? must be (at the beginning|first)",
        r"(expected|should be) [`']user[`'] or [`']assistant[`']",
    ),
    # From Gemma's and Mistral's templates, and Perplexity.
    TurnOrder.ALTERNATE: _pattern(
        "roles must alternate",
        "should alternate with",
        "unexpected role 'user' after role",
    ),
}


def refused_order(message: str) -> TurnOrder | None:
    """Returns the turn order that a refusal demands; None for another refusal."""
    return next(
        (order for order, words in _REFUSED.items() if words.search(message)),
        None,
    )


def in_order(messages: Turns, order: TurnOrder) -> Turns:
    """Returns the turns in an order that the target accepts; their texts stay the same."""
    return _WRITE[order](messages)


def _system_first(messages: Turns) -> Turns:
    """Joins the first system turns. Changes later system turns into user turns."""
    found: Turns = []
    for message in messages:
        if not _instructs(message) or not found:
            found.append(message)
        elif len(found) == 1 and _instructs(found[0]):
            found[0] = {**found[0], "content": _joined(found[0], message)}
        elif message.get("content"):
            found.append({"role": "user", "content": message["content"]})
    return found


def _without_system(messages: Turns) -> Turns:
    """Changes system turns into user turns; joins the first with a following user turn."""
    first, *rest = _system_first(messages) or [None]
    if not _instructs(first):
        return messages
    turn = {**first, "role": "user"}
    if _role(rest[:1]) == "user":
        turn = {**rest[0], "content": _joined(first, rest[0])}
        rest = rest[1:]
    return [turn, *rest]


def _alternate(messages: Turns) -> Turns:
    """Joins turns of one role; inserts ANSWER between a tool's result and a user's turn."""
    found: Turns = []
    for message in messages:
        before = _role(found[-1:])
        role = _role([message])
        calls = any("tool_calls" in turn for turn in (*found[-1:], message))
        if before == role and role in ("user", "assistant") and not calls:
            found[-1] = {**found[-1], "content": _joined(found[-1], message)}
            continue
        if (before, role) == ("tool", "user"):
            found.append(ANSWER)
        found.append(message)
    return found


_WRITE: Final[Mapping[TurnOrder, Callable[[Turns], Turns]]] = {
    TurnOrder.SYSTEM_FIRST: _system_first,
    TurnOrder.NO_SYSTEM: _without_system,
    TurnOrder.ALTERNATE: _alternate,
}


def _role(turns: Turns) -> object:
    return turns[0].get("role") if turns and isinstance(turns[0], dict) else None


def _instructs(message: Any) -> bool:
    return _role([message]) in ("system", "developer")


def _joined(*messages: Mapping[str, Any]) -> Any:
    """Joins the contents of turns: texts by an empty line, parts one after another."""
    contents = [message.get("content") or "" for message in messages]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    texts = [[{"type": "text", "text": c}] if isinstance(c, str) else c for c in contents]
    return [part for parts in texts for part in parts]


# Fields that a request can do without.
HINTS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "repetition_penalty",
    "seed",
    "reasoning_effort",
    "reasoning.effort",
    "reasoning.summary",
    "include",
    "verbosity",
    "text.verbosity",
    "parallel_tool_calls",
    "service_tier",
    "store",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "stream_options",
)
# Common words, which count as field names only if the provider quotes them.
_COMMON: Final = frozenset({"user", "store", "metadata", "include"})
# Fields that determine the answer. If a provider does not know one of them, the router does not
# remove it. It may remove a field inside it, and `max_tokens` for vLLM (`_REST`).
_NEEDED: Final = frozenset(
    {
        "container",
        "conversation",
        "input",
        "instructions",
        "max_tokens",
        "mcp_servers",
        "messages",
        "model",
        "n",
        "previous_response_id",
        "prompt",
        "response_format",
        "stream",
        "system",
        "text",
        "thread",
        "tool_choice",
        "tools",
    }
)
# The protocols' names for the limit of an answer's length.
LENGTHS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# The router repairs at most this many fields of a request, one after the other.
MAX_REPAIRS: Final = 3
_REFUSES: Final = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown (parameter|name|field|argument)|"
    r"not (enabled|available|allowed|permitted)|no longer|deprecated|extra inputs|"
    r"cannot both|only one|may only be|may not be|is immutable|only \S+ is allowed|"
    r"must be (unset|strictly positive|> 0)|or unset|must be verified",
    re.IGNORECASE,
)
# Refusals of one value or a combination, whose repair the router does not use again.
_OF_THIS_REQUEST: Final = re.compile(
    r"supported values are|cannot both|only one|together|when thinking|must be >|positive",
    re.IGNORECASE,
)
_CODES: Final = frozenset(
    {
        "unsupported_value",
        "unsupported_parameter",
        "unknown_parameter",
        "extra_forbidden",
    }
)
# Messages with the path of an unknown field, by Anthropic, OpenAI, OpenAI's older versions
# and Groq.
_UNKNOWN: Final = (
    re.compile(r"([\w.\[\]-]+): Extra inputs are not permitted"),
    re.compile(r"Unknown parameter: '([\w.\[\]-]+)'"),
    re.compile(r"Unrecognized request argument supplied: ([\w.-]+)"),
    re.compile(r"('?[\w.]+' : property '[\w.-]+)' is unsupported"),
    re.compile(r"property '([\w.\[\]-]+)' is unsupported"),
)
_STEPS: Final = re.compile(r"[^.\[\]]+")
# In a path, stands for every entry of a list, because a provider refuses the field in each.
_EACH: Final = "*"
_BETAS: Final = re.compile(
    r"unexpected value\(s\) (.+?) for the `?anthropic-beta", re.IGNORECASE
)
_INSTEAD: Final = re.compile(r"\buse [`'\"]?(max_\w+)", re.IGNORECASE)
# Messages with window and prompt tokens, by vLLM, Anthropic, OpenAI and OpenRouter.
_WINDOWS: Final = (
    re.compile(r"> (?P<window>\d+) - (?P<prompt>\d+)"),
    re.compile(r"limit: (?P<prompt>\d+) \+ \d+ > (?P<window>\d+)"),
    re.compile(
        r"maximum context length is (?P<window>\d+) tokens\b.*?"
        r"\((?P<prompt>\d+) (?:in the messages, \d+ in the completion|of text input, "
        r"(?:(?P<tools>\d+) of tool input, )?\d+ in)"
    ),
    # From SGLang.
    re.compile(
        r"maximum context length of (?P<window>\d+) tokens\. You requested a total of \d+ "
        r"tokens: (?P<prompt>\d+) tokens"
    ),
    # From TGI.
    re.compile(r"must be <= (?P<window>\d+)\. Given: (?P<prompt>\d+) `inputs`"),
)
# Since 0.13, vLLM does not report the prompt's tokens. The repair removes the limit: vLLM then
# uses the whole rest of its window.
_REST: Final = re.compile(
    r"requested [1-9]\d* output tokens"
    r"( and your prompt contains at least|\. However, the model's context length is only)"
)
# Google excludes the upper end of the range.
_BELOW: Final = re.compile(r"range is from \d+ \(inclusive\) to (\d+) \(exclusive\)")
# Bedrock's words for the limit of an answer.
_MAXIMUM_TOKENS: Final = re.compile(r"^the maximum tokens you requested", re.IGNORECASE)
_MOST: Final = re.compile(
    r"(?:at most|<=|less than or equal to|\d >|up to|(?:maximum|limit) (?:value )?(?:of|is)|"
    r"(?:range|should|between)\D{0,40}\d+\s*(?:,|and|to))\s*[`'\"]?(\d[\d,]*)",
    re.IGNORECASE,
)
_LEAST: Final = re.compile(
    r"(?:at least|>=|greater than or equal to|minimum (?:value )?(?:of|is))\s*[`'\"]?(\d+)",
    re.IGNORECASE,
)
# Ollama's and Google's names, and the names of these fields in a chat request.
_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "thinking": ("reasoning_effort",),
    "think": ("reasoning_effort",),
    "penalty": ("presence_penalty", "frequency_penalty"),
}


class RepairKind(StrEnum):
    """The kinds of change that a repair makes in a request."""

    LEAVE_BETA = "leave_beta"  # removes a value of Anthropic's beta header
    LEAVE_OUT = "leave_out"
    LEAVE_PIECE = "leave_piece"  # removes a part of the history that another target wrote
    AT_MOST = "at_most"
    AT_LEAST = "at_least"
    RENAME = "rename"
    REORDER = "reorder"  # writes the turns in the order that the target's template needs


# The part of the request that each turn order changes, for people.
_ORDERED: Final[Mapping[TurnOrder, str]] = {
    TurnOrder.SYSTEM_FIRST: "messages.system",
    TurnOrder.NO_SYSTEM: "messages.system",
    TurnOrder.ALTERNATE: "messages.roles",
}


@dataclass(frozen=True, slots=True)
class RequestRepair:
    """One change that a refusal asks for.

    `field` is a path with dots, or a header's value for LEAVE_BETA. `limit` is for AT_MOST and
    AT_LEAST, `name` is the new name or the order of turns. `kept`: whether later requests to
    the target are repaired in advance.
    """

    kind: RepairKind
    field: str
    limit: int = 0
    name: str = ""
    kept: bool = True

    @property
    def shown(self) -> str:
        """The field for people and metrics. Never the name of an unknown field, which may be a
        client's text.
        """
        if self.kind is RepairKind.LEAVE_BETA:
            return "beta"
        if self.kind in (RepairKind.LEAVE_PIECE, RepairKind.REORDER):
            return self.field
        return self.field if self.field in (*LENGTHS, *HINTS) else "unknown field"


def find_repair(
    error: Mapping[str, object], sent: Mapping[str, object]
) -> RequestRepair | None:
    """Returns the repair of a refused request, or None. error: the provider's error object."""
    message = str(error.get("message") or "")
    if betas := _BETAS.search(message):
        return RequestRepair(RepairKind.LEAVE_BETA, betas[1].translate(_NO_QUOTES))
    rest = next((n for n in LENGTHS if n in sent), "") if _REST.search(message) else ""
    left = rest or _unknown_field(error, message)
    if left and _without(sent, left.split(".")) != sent:
        return RequestRepair(RepairKind.LEAVE_OUT, left, kept=not rest)
    codes = {str(error.get(name)) for name in ("code", "type")}
    param = str(error.get("param") or "")
    if order := refused_order(message):
        return RequestRepair(RepairKind.REORDER, _ORDERED[order], name=order)
    named = param if param in HINTS else _snake(param.rpartition(".")[2])
    given = [name for name in (*LENGTHS, *HINTS) if _value(sent, name) is not None]
    field = named if named in given else _named_in(message, given)
    if named and named not in (*LENGTHS, *HINTS):
        field = ""
    if field in LENGTHS:
        return _repair_length(field, message, sent)
    if not field or not (codes & _CODES or _REFUSES.search(message)):
        return None
    kept = _OF_THIS_REQUEST.search(message) is None
    return RequestRepair(RepairKind.LEAVE_OUT, field, kept=kept)


def repair_request(
    body: Mapping[str, Any], repairs: Iterable[RequestRepair]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Applies repairs to a body. Returns the new body, and the fields that lost something."""
    found = dict(body)
    changed = list[str]()
    for repair in repairs:
        less = _repaired(found, repair)
        if less != found and repair.kind is not RepairKind.RENAME:  # renaming loses nothing
            changed.append(repair.field)
        found = less
    return found, tuple(changed)


def _repaired(body: dict[str, Any], repair: RequestRepair) -> dict[str, Any]:
    field = repair.field
    value = body.get(repair.field)
    match repair.kind:
        case RepairKind.LEAVE_OUT:
            return dict(_without(body, field.split(".")))
        case RepairKind.REORDER if isinstance(body.get("messages"), list):
            return {
                **body,
                "messages": in_order(body["messages"], TurnOrder(repair.name)),
            }
        case RepairKind.RENAME if value is not None:
            return {**_without(body, [field]), repair.name: value}
        case RepairKind.AT_MOST if isinstance(value, int) and value > repair.limit:
            return {**body, field: repair.limit}
        case RepairKind.AT_LEAST if isinstance(value, int) and value < repair.limit:
            return {**body, field: repair.limit}
    return body


_NO_QUOTES: Final = str.maketrans("", "", "`'\"")


def _unknown_field(error: Mapping[str, object], message: str) -> str:
    """Returns the path of a field that the provider does not know; empty without one."""
    path = str(error.get("param")) if error.get("type") == "extra_forbidden" else ""
    found = next((hit for words in _UNKNOWN if (hit := words.search(message))), None)
    named = found[1].replace("' : property '", ".").strip("'") if found else ""
    steps = _STEPS.findall(path or named)
    # Ignores names under `properties`, which are from the client's schema.
    if not steps or "properties" in steps or (len(steps) == 1 and steps[0] in _NEEDED):
        return ""
    return ".".join(_EACH if step.isdecimal() else step for step in steps)


def _without(place: Any, steps: list[str]) -> Any:
    """Copies without the value at a path. Skips steps that are no key: `thinking.enabled.x`."""
    step = steps[0]
    rest = steps[1:]
    if isinstance(place, dict) and step in place:
        rest_of = {name: value for name, value in place.items() if name != step}
        return {**place, step: _without(place[step], rest)} if rest else rest_of
    if isinstance(place, list) and step == _EACH and rest:
        return [_without(entry, rest) for entry in place]
    return _without(place, rest) if rest else place


def _repair_length(
    field: str,
    message: str,
    sent: Mapping[str, object],
) -> RequestRepair | None:
    """Finds the repair of the answer's length limit: another name, or another value."""
    instead = _INSTEAD.search(message)
    value = sent[field]
    if instead is not None and instead[1] in LENGTHS and instead[1] != field:
        return RequestRepair(RepairKind.RENAME, field, name=instead[1])
    if not isinstance(value, int):
        return None
    if left := _window(message):
        # Lowers the limit by one token at least, because SGLang refuses a full window.
        known = left.groupdict()
        taken = int(left["prompt"]) + int(known.get("tools") or 0)
        most = min(int(left["window"]) - taken, value - 1)
        repair = RequestRepair(RepairKind.AT_MOST, field, most, kept=False)
        return repair if most > 0 else None
    below = [str(int(number) - 1) for number in _BELOW.findall(message)]
    for number in (*below, *_MOST.findall(message)):
        most = int(number.replace(",", ""))
        if 0 < most < value:
            return RequestRepair(RepairKind.AT_MOST, field, most)
    for number in _LEAST.findall(message):
        if int(number) > value:
            return RequestRepair(RepairKind.AT_LEAST, field, int(number))
    return None


def _window(message: str) -> re.Match[str] | None:
    return next((left for words in _WINDOWS if (left := words.search(message))), None)


def _value(sent: Mapping[str, object], path: str) -> object:
    name, _, inner = path.partition(".")
    value = sent.get(name)
    return value.get(inner) if inner and isinstance(value, Mapping) else value


def _named_in(message: str, given: Iterable[str]) -> str:
    """Returns the given field that a refusal's text names; empty without one."""
    words = [_snake(word) for word in re.findall(r"[A-Za-z_]+(?:\.[a-z_]+)?", message)]
    quoted = {_snake(word) for word in re.findall(r"[`'\"]([A-Za-z_.]+)[`'\"]", message)}
    places = {
        name: words.index(name)
        for name in given
        if name in words and (name not in _COMMON or name in quoted)
    }
    if places:
        return min(places, key=places.__getitem__)
    if also := next((names for word, names in _OTHER_NAMES.items() if word in words), ()):
        return next((name for name in given if name in also), "")
    long = not set(LENGTHS).isdisjoint(words) or _MAXIMUM_TOKENS.search(message)
    if long or _window(message):
        # The limit has another name here, because the router translated the request.
        return next((name for name in given if name in LENGTHS), "")
    return ""


def _snake(name: str) -> str:
    """Turns a provider's camelCase name into the request's form."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
