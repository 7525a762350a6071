"""Derives the repair of a request from a provider's refusal, and the later requests that it
covers. A repair keeps the messages' texts, tools and formats. For a target's template it may
change the roles of turns, join turns, or insert an answer. Pure.

A refusal in words that `refusal_words` and `turn_order` do not list has no repair.
`repair_memory` remembers repairs; the router applies them in
`router.upstream.learned_repairs`.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from harness.routing.reliability.refusal_words import (
    BELOW,
    BETAS,
    CODES,
    COMMON,
    HINTS,
    INSTEAD,
    JOINT,
    LEAST,
    LENGTHS,
    MAXIMUM_TOKENS,
    MOST,
    NEEDED,
    NEEDED_INSIDE,
    OF_A_VALUE,
    OF_THE_SCHEMA,
    OTHER_NAMES,
    REFUSES,
    REST,
    SCHEMA_CODES,
    TOOLS_WITH_EFFORT,
    UNKNOWN,
    VALUE_CODE,
    WAY_OUT,
    WINDOWS,
)
from harness.routing.reliability.turn_order import TurnOrder, in_order, refused_order

# The router repairs at most this many fields of a request, one after the other.
MAX_REPAIRS: Final = 3
_STEPS: Final = re.compile(r"[^.\[\]]+")
# A step of a path for every entry of a list, because a provider refuses the field in each
# entry.
_EACH: Final = "*"


class RepairKind(StrEnum):
    """The kinds of change that a repair makes in a request."""

    LEAVE_BETA = "leave_beta"  # removes a value of Anthropic's beta header
    LEAVE_OUT = "leave_out"
    LEAVE_PIECE = "leave_piece"  # removes a part of the history that another target wrote
    AT_MOST = "at_most"
    AT_LEAST = "at_least"
    RENAME = "rename"
    SET = "set"  # gives a field the value that the refusal suggests
    REORDER = "reorder"  # writes the turns in the order that the target's template needs


class RepairReach(StrEnum):
    """The later requests to the model's endpoint that the same refusal would meet.

    Sources: the published refusals in `tests/world/refusals`. OpenAI's "Unsupported parameter:
    'temperature' is not supported with this model" is true only for some efforts. So only a
    refusal by the endpoint's schema applies to all requests.
    """

    REQUEST = "request"  # this request alone, because its size counts
    EXACT = "exact"  # the same fields with the same value of the refused field
    COMBINATION = "combination"  # the same fields beside the refused field
    OUTRIGHT = "outright"  # all requests


# The part of the request that each turn order changes, for people.
_ORDERED: Final[Mapping[TurnOrder, str]] = {
    TurnOrder.SYSTEM_FIRST: "messages.system",
    TurnOrder.NO_DEVELOPER: "messages.developer",
    TurnOrder.NO_SYSTEM: "messages.system",
    TurnOrder.ALTERNATE: "messages.roles",
}


@dataclass(frozen=True, slots=True)
class RequestRepair:
    """One change that a refusal asks for.

    `field` is a path with dots, or a header's value for LEAVE_BETA. `limit` is for AT_MOST and
    AT_LEAST. `name` is the new name, the order of turns, or the value for SET. `reach`: the
    later requests to the target that the router repairs in advance.
    """

    kind: RepairKind
    field: str
    limit: int = 0
    name: str = ""
    reach: RepairReach = RepairReach.COMBINATION

    @property
    def betas(self) -> frozenset[str]:
        """The beta headers' values that LEAVE_BETA removes."""
        if self.kind is not RepairKind.LEAVE_BETA:
            return frozenset()
        return frozenset(name.strip() for name in self.field.split(","))

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
    error: Mapping[str, object], body: Mapping[str, object]
) -> RequestRepair | None:
    """Returns the repair of a refused request, or None.

    Args:
        error: the provider's error object.
    """
    message = str(error.get("message") or "")
    if betas := BETAS.search(message):
        field = betas[1].translate(_NO_QUOTES)
        return RequestRepair(RepairKind.LEAVE_BETA, field, reach=RepairReach.OUTRIGHT)
    unlimited_field = (
        next((length_name for length_name in LENGTHS if length_name in body), "")
        if REST.search(message)
        else ""
    )
    removed_field = unlimited_field or _find_unknown_field(error, message)
    if removed_field and _remove_path(body, removed_field.split(".")) != body:
        reach = RepairReach.REQUEST if unlimited_field else RepairReach.OUTRIGHT
        return RequestRepair(RepairKind.LEAVE_OUT, removed_field, reach=reach)
    if order := refused_order(message):
        # A refusal may repeat the client's own text.
        is_own_text = refused_order(json.dumps(body)) is not None
        reach = RepairReach.REQUEST if is_own_text else RepairReach.OUTRIGHT
        return RequestRepair(RepairKind.REORDER, _ORDERED[order], name=order, reach=reach)
    if remedy := WAY_OUT.search(message):
        if remedy[1] in HINTS:
            return RequestRepair(RepairKind.SET, remedy[1], name=remedy[2])
    elif TOOLS_WITH_EFFORT.search(message):
        return RequestRepair(RepairKind.SET, "reasoning_effort", name="none")
    return _repair_hint(error, message, body)


def _repair_hint(
    error: Mapping[str, object],
    message: str,
    body: Mapping[str, object],
) -> RequestRepair | None:
    """Finds the repair of an optional field, or of the length limit."""
    codes = {str(error.get(name)) for name in ("code", "type")}
    param = str(error.get("param") or "")
    param_name = param if param in HINTS else _to_snake_case(param.rpartition(".")[2])
    present = [name for name in (*LENGTHS, *HINTS) if _field_value(body, name) is not None]
    field = param_name if param_name in present else _find_named(message, present)
    if param_name and param_name not in (*LENGTHS, *HINTS):
        field = ""
    if field in LENGTHS:
        return _repair_length(field, message, body)
    if not field or not (codes & CODES or REFUSES.search(message)):
        return None
    return RequestRepair(RepairKind.LEAVE_OUT, field, reach=_find_reach(codes, message))


def _find_reach(codes: Collection[str], message: str) -> RepairReach:
    if VALUE_CODE in codes or OF_A_VALUE.search(message) or JOINT.search(message):
        return RepairReach.EXACT
    if not SCHEMA_CODES.isdisjoint(codes) or OF_THE_SCHEMA.search(message):
        return RepairReach.OUTRIGHT
    return RepairReach.COMBINATION


def repair_request(
    body: Mapping[str, Any], repairs: Iterable[RequestRepair]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Applies repairs to a body. Returns the new body, and the fields that lost content."""
    repaired = dict(body)
    changed_fields = list[str]()
    for repair in repairs:
        changed_body = _apply_repair(repaired, repair)
        if (
            changed_body != repaired and repair.kind is not RepairKind.RENAME
        ):  # renaming loses nothing
            changed_fields.append(repair.field)
        repaired = changed_body
    return repaired, tuple(changed_fields)


def _apply_repair(body: dict[str, Any], repair: RequestRepair) -> dict[str, Any]:
    field = repair.field
    value = body.get(field)
    changed: dict[str, Any] = {}
    match repair.kind:
        case RepairKind.LEAVE_OUT:
            return dict(_remove_path(body, field.split(".")))
        case RepairKind.REORDER if isinstance(body.get("messages"), list):
            changed = {"messages": in_order(body["messages"], TurnOrder(repair.name))}
        case RepairKind.SET:
            return _set_field(body, field, repair.name)
        case RepairKind.RENAME if value is not None:
            return {**_remove_path(body, [field]), repair.name: value}
        case RepairKind.AT_MOST if isinstance(value, int) and value > repair.limit:
            changed = {field: repair.limit}
        case RepairKind.AT_LEAST if isinstance(value, int) and value < repair.limit:
            changed = {field: repair.limit}
        case _:
            return body
    return {**body, **changed}


_NO_QUOTES: Final = str.maketrans("", "", "`'\"")


def _find_unknown_field(error: Mapping[str, object], message: str) -> str:
    """Returns the path of a field that the provider does not know; empty without one."""
    path = str(error.get("param")) if error.get("type") == "extra_forbidden" else ""
    match = next((match_ for words in UNKNOWN if (match_ := words.search(message))), None)
    named_path = match[1].replace("' : property '", ".").strip("'") if match else ""
    steps = _STEPS.findall(path or named_path)
    # Ignores names under `properties`, which are from the client's schema.
    if not steps or "properties" in steps or steps[-1] in NEEDED_INSIDE:
        return ""
    if len(steps) == 1 and steps[0] in NEEDED:
        return ""
    return ".".join(_EACH if step.isdecimal() else step for step in steps)


def _remove_path(place: Any, steps: list[str]) -> Any:
    """Returns a copy without the value at a path.

    Skips a step that names the type of an object instead of a key: `thinking.enabled.x`. Does
    not change objects of another type or role.
    """
    step = steps[0]
    rest = steps[1:]
    if isinstance(place, dict) and step in place:
        rest_of = {name: value for name, value in place.items() if name != step}
        return {**place, step: _remove_path(place[step], rest)} if rest else rest_of
    if isinstance(place, list) and step == _EACH and rest:
        return [_remove_path(entry, rest) for entry in place]
    kinds = (place.get("type"), place.get("role")) if isinstance(place, dict) else ()
    if not rest or (any(kinds) and step not in kinds):
        return place
    return _remove_path(place, rest)


def _set_field(body: dict[str, Any], path: str, value: str) -> dict[str, Any]:
    name, _, inner = path.partition(".")
    if not inner:
        return {**body, name: value}
    outer = body.get(name)
    return {**body, name: {**(outer if isinstance(outer, dict) else {}), inner: value}}


def _repair_length(
    field: str,
    message: str,
    sent: Mapping[str, object],
) -> RequestRepair | None:
    """Finds the repair of the answer's length limit: another name, or another value."""
    instead = INSTEAD.search(message)
    value = sent[field]
    if instead is not None and instead[1] in LENGTHS and instead[1] != field:
        return RequestRepair(
            RepairKind.RENAME, field, name=instead[1], reach=RepairReach.OUTRIGHT
        )
    if not isinstance(value, int):
        return None
    if window := _find_window(message):
        # Lowers the limit by one token at least, because SGLang refuses a full window.
        groups = window.groupdict()
        used_tokens = int(window["prompt"]) + int(groups.get("tools") or 0)
        limit = min(int(window["window"]) - used_tokens, value - 1)
        repair = RequestRepair(RepairKind.AT_MOST, field, limit, reach=RepairReach.REQUEST)
        return repair if limit > 0 else None
    exclusive_limits = [str(int(number) - 1) for number in BELOW.findall(message)]
    for number in (*exclusive_limits, *MOST.findall(message)):
        limit = int(number.replace(",", ""))
        if 0 < limit < value:
            return RequestRepair(RepairKind.AT_MOST, field, limit)
    for number in LEAST.findall(message):
        if int(number) > value:
            return RequestRepair(RepairKind.AT_LEAST, field, int(number))
    return None


def _find_window(message: str) -> re.Match[str] | None:
    return next((match for words in WINDOWS if (match := words.search(message))), None)


def _field_value(sent: Mapping[str, object], path: str) -> object:
    name, _, inner = path.partition(".")
    value = sent.get(name)
    return value.get(inner) if inner and isinstance(value, Mapping) else value


def _find_named(message: str, present: Iterable[str]) -> str:
    """Returns the given field that a refusal's text names; empty without one."""
    words = [_to_snake_case(word) for word in re.findall(r"[A-Za-z_]+(?:\.[a-z_]+)?", message)]
    quoted = {
        _to_snake_case(word) for word in re.findall(r"[`'\"]([A-Za-z_.]+)[`'\"]", message)
    }
    positions = {
        name: words.index(name)
        for name in present
        if name in words and (name not in COMMON or name in quoted)
    }
    if positions:
        return min(positions, key=positions.__getitem__)
    if other_names := next((names for word, names in OTHER_NAMES.items() if word in words), ()):
        return next((name for name in present if name in other_names), "")
    is_about_length = not set(LENGTHS).isdisjoint(words) or MAXIMUM_TOKENS.search(message)
    if is_about_length or _find_window(message):
        # The router translated the request, so the refusal uses another name for the limit.
        return next((name for name in present if name in LENGTHS), "")
    return ""


def _to_snake_case(name: str) -> str:
    """Turns a provider's camelCase name into the request's form."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
