"""Format rules: how answers break their format, and how to fix each break.

Scorers find the breaks (`evals.scorers`); this module only explains them. The remedies are
advice for people, and change neither prompt nor score by themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

# The prompt gets no line for a rule with a smaller share of all breaks.
MIN_RULE_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class FormatRemedy:
    """What to change so that a candidate keeps to the format."""

    rule: str  # the rule that broke most often
    what: str  # its meaning, as a verb phrase after "the candidate"
    prompt: str  # lines to add to the system message, for every rule that broke often
    json_mode: bool  # whether `response_format: json_object` prevents the break
    parser: str  # what the application's parser can do instead


def find_remedy(rules: Mapping[str, int], scorer: str = "") -> FormatRemedy | None:
    """Finds the remedy for the broken rules; None without a break.

    Args:
        rules: how often each rule broke.
        scorer: the name of the suite's scorer, if known.
    """
    if not rules:
        return None
    counts: dict[str, int] = {}
    for rule, count in rules.items():
        first = rule.partition("+")[0]
        counts[first] = counts.get(first, 0) + count
    often = sorted(counts, key=lambda rule: (-counts[rule], rule))
    worst = often[0]
    total = sum(counts.values())
    lines = dict.fromkeys(
        find_format_rule(rule, scorer).prompt
        for rule in often
        if rule == worst or counts[rule] >= MIN_RULE_SHARE * total
    )
    form = find_format_rule(worst, scorer)
    return FormatRemedy(worst, form.what, " ".join(lines), form.json_mode, form.parser)


JSON_ONLY: Final = (
    "Answer with the JSON object alone: no code fence, no words before or after it."
)
LABEL_ONLY: Final = "Answer with the label alone, exactly as it is listed, and nothing else."
VALUE_ONLY: Final = "Answer with the answer alone: no explanation, no markup, no quotes."
TEXT_ONLY: Final = "Answer with the text alone: no code fence, no words before or after it."
CODE_ONLY: Final = "Answer with the code alone: no code fence, no words before or after it."
FINAL_LINE: Final = "End with one line in exactly the form that was asked for, unformatted."
CALL: Final = "Use the tools by calling them; never write a call as text."
TO_THE_LETTER: Final = "Follow every instruction exactly, to the letter."


@dataclass(frozen=True, slots=True)
class FormatRule:
    """One format rule's meaning and fixes; fields as in FormatRemedy."""

    what: str
    prompt: str
    parser: str
    json_mode: bool = False


def _json_rule(what: str, parser: str) -> FormatRule:
    return FormatRule(what, JSON_ONLY, parser, json_mode=True)


FORMAT_RULES: Final[Mapping[str, FormatRule]] = {
    "code_fence": _json_rule("puts its answer into a code fence", "take off one code fence"),
    "leading_prose": _json_rule("writes words before the JSON", "read from the first brace"),
    "trailing_prose": _json_rule("writes words after the JSON", "stop at the last brace"),
    "extra_prose": _json_rule("writes words around the JSON", "read from brace to brace"),
    "double_escaped": _json_rule("escapes its JSON twice", "decode a string that holds JSON"),
    "trailing_comma": _json_rule("leaves a comma before a closing bracket", "drop such commas"),
    "single_quotes": _json_rule(
        "writes objects as Python does", "read Python literals as well"
    ),
    "bare_keys": _json_rule("leaves keys without quotes", "quote bare keys"),
    "key_case": FormatRule(
        "writes keys in another case",
        "Use the keys exactly as they are given, letter by letter.",
        "compare keys without regard to case",
    ),
    "missing_null": FormatRule(
        "leaves keys out that have no value",
        "Write every key; where there is no value, write null.",
        "take a missing key for null",
    ),
    "value_type": FormatRule(
        "writes values in another type, such as numbers as text",
        "Write numbers as numbers, not as text.",
        "convert values to the schema's types",
    ),
    "case": FormatRule(
        "writes the label in another case",
        LABEL_ONLY,
        "compare labels without case",
    ),
    "typography": FormatRule(
        "writes typographic hyphens, quotes or spaces",
        "Use only plain ASCII hyphens (-), quotes (' and \") and spaces.",
        "make hyphens, quotes and spaces plain before the comparison",
    ),
    "label_with_extra_text": FormatRule(
        "writes more than the label",
        LABEL_ONLY,
        "look for the only label in the answer",
    ),
    "extra_text": FormatRule(
        "writes more than the answer",
        VALUE_ONLY,
        "look for the answer in it",
    ),
    "markup": FormatRule("marks its answer up", VALUE_ONLY, "take off Markdown"),
    "quotes": FormatRule("puts its answer into quotes", VALUE_ONLY, "take off quotes"),
    "trailing_punctuation": FormatRule(
        "ends its answer with punctuation",
        VALUE_ONLY,
        "take off punctuation",
    ),
    "no_final_line": FormatRule(
        "leaves out the final line",
        FINAL_LINE,
        "take the last value of the answer",
    ),
    "final_line_form": FormatRule(
        "writes the final line in another form",
        FINAL_LINE,
        "read the value wherever it stands in the last line",
    ),
    "call_as_text": FormatRule(
        "writes tool calls as text", CALL, "parse calls out of the text"
    ),
    "tool_name_form": FormatRule(
        "writes tool names in another form",
        "Use the tools' names exactly as they are given.",
        "compare names without case and separators",
    ),
    "arguments_not_json": FormatRule(
        "writes arguments that are not JSON",
        "Write the arguments of a tool as one JSON object.",
        "repair the arguments",
    ),
    "argument_type": FormatRule(
        "writes arguments in another type",
        "Keep to the types that the tools' schemas name.",
        "convert arguments to the schema's types",
    ),
    "schema": FormatRule(
        "writes JSON that the schema does not allow",
        "Keep to the schema exactly: its keys and its types, and no others.",
        "drop keys that the schema does not know",
    ),
    "length": FormatRule(
        "does not keep to the length that is asked for",
        "Keep exactly to the length that is asked for; count before you answer.",
        "take another length, or cut at the limit",
    ),
    "empty_answer": FormatRule("answers with nothing", VALUE_ONLY, "ask again"),
    "no_label": FormatRule("names no label", LABEL_ONLY, "ask again"),
    "no_choice": FormatRule("settles on no choice", LABEL_ONLY, "ask again"),
    "no_number": FormatRule("writes no number", FINAL_LINE, "ask again"),
    "no_json": _json_rule("writes no JSON object", "ask again"),
    "literal_form": FormatRule(
        "follows instructions in another spelling",
        TO_THE_LETTER,
        "take other bullets, another case and marks around a phrase",
    ),
}
OTHER_RULE: Final = FormatRule(
    "keeps to another form than was asked for",
    "Keep exactly to the form that is asked for, and write nothing else.",
    "accept that form as well",
)
# Suites with JSON answers; sentences about their rules name JSON.
JSON_SCORERS: Final = frozenset({"", "json_fields", "json_schema"})
SCORER_LINES: Final[Mapping[str, str]] = {
    "code": CODE_ONLY,
    "label": LABEL_ONLY,
    "choice": LABEL_ONLY,
    "exact": VALUE_ONLY,
    "regex": VALUE_ONLY,
    "numeric": FINAL_LINE,
    "tool_call": CALL,
}


def format_prompts() -> frozenset[str]:
    """Lists every line that a remedy may add to a prompt."""
    forms = (*FORMAT_RULES.values(), OTHER_RULE)
    return frozenset((TEXT_ONLY, *SCORER_LINES.values(), *(form.prompt for form in forms)))


def find_format_rule(rule: str, scorer: str = "") -> FormatRule:
    """Finds a rule by name.

    Args:
        rule: for several names joined by `+`, the first, outermost rule counts.
        scorer: the scorer's name.
    """
    outermost = rule.partition("+")[0]
    form = FORMAT_RULES.get(outermost, OTHER_RULE)
    if not form.json_mode or scorer in JSON_SCORERS:
        return form
    what = form.what.replace("its JSON", "its answer").replace("the JSON", "the answer")
    return replace(
        form,
        what=what,
        prompt=SCORER_LINES.get(scorer, TEXT_ONLY),
        json_mode=False,
    )
