"""Remembers the combinations of fields that a model's endpoint refused, so that a repair
changes only later requests with the same combination. Pure: functions of memory, observation
and time.

A combination has three parts. Beta headers and switches (the effort, thinking on or off) must
be the same. All other fields are compared by name and by small values. Two refusals with the
same switches show that the fields in which they differ do not matter.

A remembered refusal is tested again: after `FIRST_WAIT_S`, one request goes out unchanged. A
refusal doubles the wait, up to `KEPT_S`; a good answer ends the repair.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, Final

from harness.routing.reliability.refusal_words import HINTS, LENGTHS
from harness.routing.reliability.request_repair import (
    RepairKind,
    RepairReach,
    RequestRepair,
    repair_request,
)

# How long a refusal counts, and how long it counts before the first test.
KEPT_S: Final = 86_400.0
FIRST_WAIT_S: Final = 600.0
# While one test is under way, further requests are repaired.
TEST_GAP_S: Final = 60.0
# The most refusals, and the most accepted combinations, of an endpoint.
MOST_REFUSALS: Final = 64
MOST_ACCEPTED: Final = 64
# A request with more or longer fields has no combination to remember.
MOST_FIELDS: Final = 64
MOST_LETTERS: Final = 64
MOST_TEXTS: Final = 256
# Switches of the way in which a model answers, by their paths.
_SWITCHES: Final = (
    "reasoning_effort",
    "reasoning.effort",
    "reasoning.enabled",
    "output_config.effort",
    "thinking",
    "thinking.type",
    "enable_thinking",
    "think",
    "chat_template_kwargs.enable_thinking",
    "chat_template_kwargs.thinking",
)
# Names of callers, and the content: only its kinds count (`_content_kinds`).
_EXCLUDED_FIELDS: Final = frozenset(
    {
        "model",
        "messages",
        "input",
        "prompt",
        "system",
        "instructions",
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
    }
)
_SMALL_VALUE: Final = re.compile(r"[\w.:-]{0,24}")
# Fields beside HINTS and LENGTHS that people may see. Other names may be a client's text.
_SHOWN_FIELDS: Final = frozenset(
    {*HINTS, *LENGTHS, *_SWITCHES, "tools", "tool_choice", "stream", "response_format"}
)
_SHOWN_VALUES: Final = re.compile(
    "none|minimal|low|medium|high|xhigh|max|true|false|enabled|disabled|adaptive|auto"
)


@dataclass(frozen=True, slots=True)
class Combination:
    """The fields of one request. switches, fields: names, and `name=value` for small values."""

    betas: frozenset[str]
    switches: frozenset[str]
    fields: frozenset[str]


def read_combination(
    body: Mapping[str, Any], betas: Collection[str] = ()
) -> Combination | None:
    """Reads the combination of a request; None if its fields are too many or too long."""
    considered = {name: value for name, value in body.items() if _is_part(name, value)}
    if len(considered) > MOST_FIELDS or any(len(name) > MOST_LETTERS for name in considered):
        return None
    texts = (text for name, value in considered.items() for text in _field_texts(name, value))
    parts = set(islice(chain(texts, _content_kinds(body)), MOST_TEXTS))
    if len(parts) == MOST_TEXTS:
        return None
    switches = {text for text in parts if text.partition("=")[0] in _SWITCHES}
    return Combination(frozenset(betas), frozenset(switches), frozenset(parts - switches))


def _is_part(name: str, value: object) -> bool:
    # `stream: false` and null mean the same as a missing field.
    return (
        name not in _EXCLUDED_FIELDS
        and value is not None
        and (name, value) != ("stream", False)
    )


def _field_texts(name: str, value: Any) -> Iterator[str]:
    """Yields a field's name, and its small values: `a`, `a=true`, `a.b=low`."""
    yield name
    inner = value.items() if isinstance(value, Mapping) else ()
    for path, part in ((name, value), *((f"{name}.{key}", part) for key, part in inner)):
        if isinstance(part, bool):
            yield f"{path}={json.dumps(part)}"
        elif isinstance(part, str) and _SMALL_VALUE.fullmatch(part):
            yield f"{path}={part}"


def _content_kinds(body: Mapping[str, Any]) -> set[str]:
    """Returns the kinds of content other than text: `content.image_url`."""
    turns = body.get("messages") or body.get("input")
    contents = [
        turn.get("content")
        for turn in (turns if isinstance(turns, list) else ())
        if isinstance(turn, Mapping)
    ]
    kinds = {
        part.get("type")
        for content in contents
        if isinstance(content, list)
        for part in content
        if isinstance(part, Mapping)
    }
    short_kinds = {
        kind for kind in kinds if isinstance(kind, str) and _SMALL_VALUE.fullmatch(kind)
    }
    return {f"content.{kind}" for kind in short_kinds if "text" not in kind}


@dataclass(frozen=True, slots=True)
class RefusedCombination:
    """The combinations that a refusal covers.

    betas: None for any. switches: None for any. always: fields that each covered request has.
    ever: fields that it may have; None for any. value: of the refused field, as JSON; empty
    for any.
    """

    betas: frozenset[str] | None
    switches: frozenset[str] | None
    always: frozenset[str]
    ever: frozenset[str] | None
    value: str = ""

    def covers(self, combination: Combination, value: str) -> bool:
        """Returns whether a request is covered.

        Args:
            value: of its repaired field, as JSON.
        """
        return (
            (self.betas is None or self.betas == combination.betas)
            and (self.switches is None or self.switches == combination.switches)
            and self.always <= combination.fields
            and (self.ever is None or combination.fields <= self.ever)
            and self.value in ("", value)
        )

    def merged(self, other: "RefusedCombination") -> "RefusedCombination | None":
        """Joins two refusals that differ in fields alone; None for others."""
        own = (self.betas, self.switches, self.value)
        if self.ever is None or other.ever is None:
            return None
        if own != (other.betas, other.switches, other.value):
            return None
        return replace(self, always=self.always & other.always, ever=self.ever | other.ever)

    def conditions(self, field: str) -> list[str]:
        """Names the other fields of the combination for people, without clients' texts."""
        named = [text.partition("=") for text in (self.switches or frozenset()) | self.always]
        names = {
            f"{name}={value}" if _SHOWN_VALUES.fullmatch(value) else name
            for name, _, value in named
            if name in _SHOWN_FIELDS and name != field
        }
        # `reasoning_effort=high` says more than `reasoning_effort`.
        said = sorted(text for text in names if not any(f"{text}=" in more for more in names))
        return [*said, *(["its beta headers"] if self.betas else [])]


def _refused_combinations(
    repair: RequestRepair, combination: Combination, value: str
) -> RefusedCombination:
    if repair.reach is RepairReach.OUTRIGHT:
        # A beta header may make a field known.
        betas = combination.betas if repair.kind is RepairKind.LEAVE_OUT else None
        return RefusedCombination(betas, None, frozenset(), None)
    exact = value if repair.reach is RepairReach.EXACT else ""
    return RefusedCombination(
        combination.betas, combination.switches, combination.fields, combination.fields, exact
    )


@dataclass(frozen=True, slots=True)
class KnownRefusal:
    """A repair, the combinations to which it applies, and the time of its next test.

    Times are in seconds of a monotonic clock.
    """

    repair: RequestRepair
    refused: RefusedCombination
    at_s: float  # of the last refusal
    wait_s: float
    test_at_s: float

    def counts(self, now_s: float) -> bool:
        return now_s - self.at_s < KEPT_S

    def applies(self, body: Mapping[str, Any], combination: Combination) -> bool:
        """Returns whether the request is covered, and the repair would change it."""
        # A client may make the router learn many fields of a long history, so this code reads
        # the value only if it counts.
        value = _field_text(body, self.repair.field) if self.refused.value else ""
        return self.refused.covers(combination, value) and _would_change(
            self.repair, body, combination
        )


@dataclass(frozen=True, slots=True)
class RepairMemory:
    """The combinations that an endpoint of a model refused, and related ones that it accepted.

    accepted: repairs of a field with a combination that the endpoint accepted after its
    refusal.
    """

    known: tuple[KnownRefusal, ...] = ()
    accepted: tuple[tuple[RequestRepair, Combination], ...] = ()


def remember_refusal(
    memory: RepairMemory,
    repair: RequestRepair,
    body: Mapping[str, Any],
    combination: Combination,
    now_s: float,
) -> RepairMemory:
    """Adds a refusal of a request.

    Args:
        body: as the provider refused it.
        combination: as the provider refused it.
    """
    value = _field_text(body, repair.field)
    new_refusal = _refused_combinations(repair, combination, value)
    accepted = tuple(entry for entry in memory.accepted if entry != (repair, combination))
    refusals: list[KnownRefusal] = []
    is_added = False
    for old in memory.known:
        if not old.counts(now_s):
            continue
        is_covered = old.refused.covers(combination, value)
        if old.repair != repair:
            # The provider names another repair of this field for the same combination.
            if not (is_covered and old.repair.field == repair.field):
                refusals.append(old)
            continue
        if not is_added and is_covered:
            refusals.append(_double_wait(old, now_s))
            is_added = True
            continue
        joined = None if is_added else _join_refusals(old, new_refusal, accepted)
        is_added = is_added or joined is not None
        refusals.append(old if joined is None else _build_known_refusal(repair, joined, now_s))
    if not is_added:
        refusals.append(_build_known_refusal(repair, new_refusal, now_s))
    return RepairMemory(tuple(refusals[-MOST_REFUSALS:]), accepted)


def _join_refusals(
    old: KnownRefusal,
    new: RefusedCombination,
    accepted: Collection[tuple[RequestRepair, Combination]],
) -> RefusedCombination | None:
    """Joins refusals of one repair, unless the provider accepted a request in between."""
    if old.repair.reach is not RepairReach.COMBINATION:
        return None
    joined = old.refused.merged(new)
    accepted_combinations = [
        combination for repair, combination in accepted if repair == old.repair
    ]
    if joined is None or any(
        joined.covers(combination, "") for combination in accepted_combinations
    ):
        return None
    return joined


def _build_known_refusal(
    repair: RequestRepair, refused: RefusedCombination, now_s: float
) -> KnownRefusal:
    return KnownRefusal(repair, refused, now_s, FIRST_WAIT_S, now_s + FIRST_WAIT_S)


def _double_wait(old: KnownRefusal, now_s: float) -> KnownRefusal:
    """Doubles the wait after a refused test. Requests that ran at the same time count once."""
    if now_s - old.at_s < old.wait_s:
        return old
    wait_s = min(KEPT_S, 2 * old.wait_s)
    return replace(old, at_s=now_s, wait_s=wait_s, test_at_s=now_s + wait_s)


def note_answer(
    memory: RepairMemory,
    body: Mapping[str, Any],
    combination: Combination,
) -> RepairMemory:
    """Ends the repairs that would have changed a request with a good answer.

    Args:
        body: as the provider got it.
        combination: as the provider got it.
    """
    known = tuple(
        entry
        for entry in memory.known
        if entry.repair.kind is RepairKind.LEAVE_PIECE or not entry.applies(body, combination)
    )
    newly_accepted = {
        (entry.repair, combination): None
        for entry in known
        if entry.repair.reach is RepairReach.COMBINATION
        and _would_change(entry.repair, body, combination)
    }
    if len(known) == len(memory.known) and newly_accepted.keys() <= set(memory.accepted):
        return memory
    accepted = tuple({**dict.fromkeys(memory.accepted), **newly_accepted})
    return RepairMemory(known, accepted[-MOST_ACCEPTED:])


def begin_test(memory: RepairMemory, entry: KnownRefusal, now_s: float) -> RepairMemory:
    """Marks that one request goes out unchanged, and repairs further requests for
    TEST_GAP_S.
    """
    testing = replace(entry, test_at_s=now_s + TEST_GAP_S)
    return replace(
        memory,
        known=tuple(testing if old is entry else old for old in memory.known),
    )


def _would_change(
    repair: RequestRepair,
    body: Mapping[str, Any],
    combination: Combination,
) -> bool:
    if repair.kind is RepairKind.LEAVE_BETA:
        return not combination.betas.isdisjoint(repair.betas)
    return repair_request(body, [repair])[0] != body


def _field_text(body: Mapping[str, Any], path: str) -> str:
    name, _, inner = path.partition(".")
    value = body.get(name)
    if inner and isinstance(value, Mapping):
        value = value.get(inner)
    text = json.dumps(value, sort_keys=True)
    # A long text, such as metadata, is compared by its digest, to save memory.
    return text if len(text) <= MOST_LETTERS else blake2b(text.encode()).hexdigest()
