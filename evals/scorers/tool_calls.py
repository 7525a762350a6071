"""The scorer `tool_call` checks that an answer calls the right functions.

The target is `{"name": …, "arguments": {…}}`, a list of such calls (all of them, in any
order), or `[]` if the right answer has no call. With `any_of` each argument of the target is a
list of accepted values; `""` in the list means that the argument may be missing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from evals.scorers.interface import (
    EMPTY_ANSWER,
    AnswerToolCall,
    Options,
    Scorer,
    ScoreResult,
    right_or_wrong,
    unreadable,
)
from evals.scorers.json_fields import plain_texts, relaxed, same
from evals.scorers.typography import plain_typography
from evals.scorers.unwrap import LONGEST, json_object, loads, repaired, unfenced
from evals.suites.items import Item
from harness.frame.canonical_text import canonical, canonical_value
from harness.frame.errors import InputError

# Names of a call's parts in calls that models write as text.
NAMES: Final = ("name", "tool", "tool_name", "function", "function_name")
ARGUMENTS: Final = ("arguments", "parameters", "args", "input", "tool_input")
TAGGED = re.compile(r"<(tool_call|function_call)>(.*?)</\1>", re.DOTALL)
MOST_MATCHED: Final = 32  # calls that the scorer compares in every order


@dataclass(frozen=True, slots=True)
class ReadToolCall:
    """A call, as read. rule: the form rule that it breaks; empty for a proper call."""

    name: str
    arguments: Mapping[str, Any]
    rule: str = ""


def tool_calls(
    calls: Sequence[AnswerToolCall], answer: str, item: Item, options: Options
) -> ScoreResult:
    """Scores the tool calls of an answer.

    strict: exactly the target's calls, with the target's types.
    lenient: also a call as text, almost correct JSON, numbers as texts, another spelling of a
    name.
    """
    if not calls and not answer.strip():
        return EMPTY_ANSWER
    try:
        return _scored(calls, answer, target_calls(item), any_of=bool(options["any_of"]))
    except RecursionError:
        # The same as in `json_fields`: hundreds of nested brackets.
        return unreadable(answer, "no_json")


def in_words(answer: str, item: Item, options: Options) -> ScoreResult:
    return tool_calls((), answer, item, options)


def _scored(
    calls: Sequence[AnswerToolCall],
    answer: str,
    targets: Sequence[ReadToolCall],
    *,
    any_of: bool,
) -> ScoreResult:
    if not targets:
        return right_or_wrong(strict=not calls, lenient=not calls)
    strict = [proper(call) for call in calls]
    if all(strict) and matched(
        [call for call in strict if call], targets, any_of=any_of, loose=False
    ):
        return right_or_wrong(strict=True, lenient=True)
    read = [mended(call) for call in calls] if calls else written_in(answer)
    if not matched(read, targets, any_of=any_of, loose=True):
        return right_or_wrong(strict=False, lenient=False)
    rules = [call.rule for call in read if call.rule]
    return right_or_wrong(
        strict=False,
        lenient=True,
        rule=rules[0] if rules else value_rule(read, targets, any_of=any_of),
    )


def value_rule(
    read: Sequence[ReadToolCall], targets: Sequence[ReadToolCall], *, any_of: bool
) -> str:
    names = {call.name for call in targets}
    if not all(call.name in names for call in read):
        return "tool_name_form"
    plain = [replace(call, arguments=plain_arguments(call)) for call in read]
    expected = [replace(call, arguments=plain_arguments(call)) for call in targets]
    by_typography = matched(plain, expected, any_of=any_of, loose=False)
    return "typography" if by_typography else "argument_type"


def plain_arguments(call: ReadToolCall) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", plain_texts(dict(call.arguments)))


def proper(call: AnswerToolCall) -> ReadToolCall | None:
    found = json_object(call.arguments.strip() or "{}")
    return None if found is None else read_call(call.name, found)


def read_call(name: str, arguments: Mapping[str, Any], rule: str = "") -> ReadToolCall:
    """Returns the call with all its texts in NFC."""
    return ReadToolCall(canonical(name), canonical_value(dict(arguments)), rule)


def mended(call: AnswerToolCall) -> ReadToolCall:
    inner = loads(call.arguments)
    if isinstance(inner, str):
        found = json_object(inner)
        return read_call(call.name, found or {}, "double_escaped")
    read = repaired(call.arguments.strip() or "{}")
    return (
        ReadToolCall(call.name, {}, "arguments_not_json")
        if read is None
        else read_call(call.name, *read)
    )


def written_in(answer: str) -> list[ReadToolCall]:
    if len(answer) > LONGEST:
        return []
    tagged = [match_[2] for match_ in TAGGED.finditer(answer)]
    if tagged:
        return [call for text in tagged for call in calls_of(mended_json(text))]
    text = unfenced(answer.strip())
    listed = loads(text)
    return calls_of(listed if isinstance(listed, list) else mended_json(answer))


def mended_json(text: str) -> Any:
    read = repaired(text)
    return None if read is None else read[0]


def calls_of(value: Any) -> list[ReadToolCall]:
    if isinstance(value, list):
        return [call for item in value for call in calls_of(item)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("tool_calls"), list):
        return calls_of(value["tool_calls"])
    if isinstance(value.get("function"), dict):
        return calls_of(value["function"])
    name = next((value[key] for key in NAMES if isinstance(value.get(key), str)), None)
    given: object = next((value[key] for key in ARGUMENTS if key in value), {})
    arguments = loads(given) if isinstance(given, str) else given
    if name is None or not isinstance(arguments, dict):
        return []
    return [read_call(name, arguments, "call_as_text")]


def matched(
    calls: Sequence[ReadToolCall], targets: Sequence[ReadToolCall], *, any_of: bool, loose: bool
) -> bool:
    """Matches calls and targets in any order, by a perfect matching (Kuhn 1955)."""
    if len(calls) != len(targets) or len(calls) > MOST_MATCHED:
        return False
    fits = [
        [n for n, target in enumerate(targets) if alike(call, target, any_of, loose=loose)]
        for call in calls
    ]
    taken: dict[int, int] = {}

    def place(at: int, seen: set[int]) -> bool:
        for n in fits[at]:
            if n in seen:
                continue
            seen.add(n)
            if n not in taken or place(taken[n], seen):
                taken[n] = at
                return True
        return False

    return all(place(at, set()) for at in range(len(calls)))


def alike(call: ReadToolCall, target: ReadToolCall, any_of: bool, *, loose: bool) -> bool:  # noqa: FBT001 - callers pass it by position
    if call.name != target.name and not (loose and spelled(call.name) == spelled(target.name)):
        return False
    if any_of:
        return within(call.arguments, target.arguments, loose=loose)
    return equal(dict(call.arguments), dict(target.arguments), loose=loose)


def spelled(name: str) -> str:
    """Folds a name's spelling. Models write dots, which providers refuse, and `functions.`."""
    plain = plain_typography(name.removeprefix("functions.")).casefold()
    return re.sub(r"[.\-\s]", "_", plain)


def equal(one: object, other: object, *, loose: bool) -> bool:
    return same(one, other) or (loose and same(relaxed(one), relaxed(other)))


def within(arguments: Mapping[str, Any], accepted: Mapping[str, Any], *, loose: bool) -> bool:
    if not arguments.keys() <= accepted.keys():
        return False
    return all(
        any(equal(arguments[key], value, loose=loose) for value in values)
        if key in arguments
        else "" in values
        for key, values in accepted.items()
    )


def target_calls(item: Item) -> list[ReadToolCall]:
    targets = item.target if isinstance(item.target, list) else [item.target]
    found = []
    for target in targets:
        if (
            not isinstance(target, dict)
            or not isinstance(target.get("name"), str)
            or not isinstance(target.get("arguments"), dict)
        ):
            raise InputError(
                f"item {item.id!r}: scorer 'tool_call' needs a target of the form "
                '{"name": "…", "arguments": {…}}, a list of these, or []; this is '
                f"{json.dumps(target, ensure_ascii=False)[:60]}"
            )
        found.append(read_call(target["name"], target["arguments"]))
    return found


def check(item: Item, options: Options) -> str | None:
    for call in target_calls(item):
        lists = all(
            isinstance(argument, list) and argument for argument in call.arguments.values()
        )
        if options["any_of"] and not lists:
            raise InputError(
                f"item {item.id!r}: with any_of every argument of {call.name!r} is a list of "
                "accepted values"
            )
    return None


def target_score(item: Item, options: Options) -> ScoreResult:
    """Scores the target's calls; with `any_of` the first value of each argument."""
    calls = []
    for call in target_calls(item):
        arguments = dict(call.arguments)
        if options["any_of"]:
            given = {name: [v for v in values if v != ""] for name, values in arguments.items()}
            arguments = {name: values[0] for name, values in given.items() if values}
        calls.append(AnswerToolCall(call.name, json.dumps(arguments)))
    return tool_calls(calls, "" if calls else "No call.", item, options)


TOOL_CALL = Scorer(
    "tool_call",
    in_words,
    {"any_of": False},
    check=check,
    calls=tool_calls,
    target_score=target_score,
)
