"""What to change where a candidate loses by form: prompt line, format, parser (A8).

A remedy's home is the target's request patch: it is another target then, and evaluated anew.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.domain.routing.target import RequestPatch, Target
from harness.gate.offline.format_rules import find_format_rule

JSON_MODE: Final[Mapping[str, object]] = {"type": "json_object"}
# A rule that breaks less often than this share of all breaks gets no line of its own.
MIN_RULE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class FormatRemedy:
    """rule: that broke most. what: it means, in words. prompt: to add to the system message,
    for every rule that broke often. json_mode: whether `response_format: json_object` prevents
    it. parser: what the application could do instead."""

    rule: str
    what: str
    prompt: str
    json_mode: bool
    parser: str


def find_remedy(rules: Mapping[str, int], scorer: str = "") -> FormatRemedy | None:
    """For the rules that broke; None when none did.

    rules: how often each broke. scorer: the name of the suite's, where it is known.
    """
    if not rules:
        return None
    counts: dict[str, int] = {}
    for rule, count in rules.items():
        first = rule.partition("+")[0]
        counts[first] = counts.get(first, 0) + count
    often = sorted(counts, key=lambda rule: (-counts[rule], rule))
    worst, total = often[0], sum(counts.values())
    lines = dict.fromkeys(
        find_format_rule(rule, scorer).prompt
        for rule in often
        if rule == worst or counts[rule] >= MIN_RULE_SHARE * total
    )
    form = find_format_rule(worst, scorer)
    return FormatRemedy(worst, form.what, " ".join(lines), form.json_mode, form.parser)


def patch_candidate(candidate: Target, remedy: FormatRemedy) -> Target:
    """The candidate with the remedy's line in its patch, beside what is there already."""
    patch = candidate.request_patch
    lines = " ".join(filter(None, (patch.prompt_addendum, remedy.prompt)))
    return replace(candidate, request_patch=replace(patch, prompt_addendum=lines))


def with_json_mode(candidate: Target) -> Target:
    """The candidate with `response_format: json_object`, instead of a line."""
    patch = replace(candidate.request_patch, response_format=JSON_MODE)
    return replace(candidate, request_patch=patch)


def model_add_command(target: Target) -> str:
    """The command that registers it."""
    named = f"{target.provider}/{target.model}"
    return shlex.join(["swapgate", "model", "add", named, *target_options(target)])


def target_options(target: Target) -> Sequence[str]:
    """What is its own beside the model's name, as options of `model add` and `gate run`."""
    patch: RequestPatch = target.request_patch
    words: list[str] = []
    for option, fields in (("--param", target.parameters), ("--patch-param", patch.parameters)):
        for key, value in fields.items():
            words += [option, f"{key}={json.dumps(value, ensure_ascii=False)}"]
    if patch.prompt_addendum:
        words += ["--prompt-addendum", patch.prompt_addendum]
    if patch.response_format:
        words += ["--response-format", json.dumps(dict(patch.response_format))]
    return words
