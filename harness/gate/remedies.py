"""What to change where a candidate loses by form: prompt line, format, parser (A8).

A remedy's home is the target's request patch: it is another target then, and evaluated anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

JSON_ONLY: Final = (
    "Answer with the JSON object alone: no code fence, no words before or after it."
)
LABEL_ONLY: Final = "Answer with the label alone, exactly as it is listed, and nothing else."
VALUE_ONLY: Final = "Answer with the answer alone: no explanation, no markup, no quotes."
CALL: Final = "Use the tools by calling them; never write a call as text."


@dataclass(frozen=True, slots=True)
class Remedy:
    """rule: that broke most. what: it means, in words. prompt: a line to add to the system
    message. json_mode: whether `response_format: json_object` prevents it. parser: what the
    application could accept instead."""

    rule: str
    what: str
    prompt: str
    json_mode: bool
    parser: str


@dataclass(frozen=True, slots=True)
class _Form:
    what: str
    prompt: str
    parser: str
    json_mode: bool = False


def _json(what: str, parser: str) -> _Form:
    return _Form(what, JSON_ONLY, parser, json_mode=True)


FORMS: Final[Mapping[str, _Form]] = {
    "code_fence": _json("puts its answer into a code fence", "take off one code fence"),
    "leading_prose": _json("writes words before the JSON", "read from the first brace"),
    "trailing_prose": _json("writes words after the JSON", "stop at the last brace"),
    "extra_prose": _json("writes words around the JSON", "read from brace to brace"),
    "double_escaped": _json("escapes its JSON twice", "decode a string that holds JSON"),
    "trailing_comma": _json("leaves a comma before a closing bracket", "drop such commas"),
    "single_quotes": _json("writes objects as Python does", "read Python literals as well"),
    "bare_keys": _json("leaves keys without quotes", "quote bare keys"),
    "key_case": _Form(
        "writes keys in another case",
        "Use the keys exactly as they are given, letter by letter.",
        "compare keys without regard to case",
    ),
    "missing_null": _Form(
        "leaves keys out that have no value",
        "Write every key; where there is no value, write null.",
        "take a missing key for null",
    ),
    "value_type": _Form(
        "writes values in another type, such as numbers as text",
        "Write numbers as numbers, not as text.",
        "convert values to the schema's types",
    ),
    "case": _Form(
        "writes the label in another case", LABEL_ONLY, "compare labels without case"
    ),
    "label_with_extra_text": _Form(
        "writes more than the label", LABEL_ONLY, "look for the only label in the answer"
    ),
    "extra_text": _Form("writes more than the answer", VALUE_ONLY, "look for the answer in it"),
    "markup": _Form("marks its answer up", VALUE_ONLY, "take off Markdown"),
    "quotes": _Form("puts its answer into quotes", VALUE_ONLY, "take off quotes"),
    "trailing_punctuation": _Form(
        "ends its answer with punctuation", VALUE_ONLY, "take off punctuation"
    ),
    "no_final_line": _Form(
        "leaves out the final line",
        "End with one line in exactly the form that was asked for.",
        "take the last value of the answer",
    ),
    "final_line_form": _Form(
        "writes the final line in another form",
        "End with one line in exactly the form that was asked for.",
        "read the value wherever it stands in the last line",
    ),
    "call_as_text": _Form("writes tool calls as text", CALL, "parse calls out of the text"),
    "tool_name_form": _Form(
        "writes tool names in another form",
        "Use the tools' names exactly as they are given.",
        "compare names without case and separators",
    ),
    "arguments_not_json": _Form(
        "writes arguments that are not JSON",
        "Write the arguments of a tool as one JSON object.",
        "repair the arguments",
    ),
    "argument_type": _Form(
        "writes arguments in another type",
        "Keep to the types that the tools' schemas name.",
        "convert arguments to the schema's types",
    ),
}
OTHER: Final = _Form(
    "keeps to another form than was asked for",
    "Keep exactly to the form that is asked for, and write nothing else.",
    "accept that form as well",
)


def remedy_of(rules: Mapping[str, int]) -> Remedy | None:
    """For the rule that broke most; None when none did.

    rules: how often each broke; one that names several (`code_fence+single_quotes`) counts for
    its first, which is the outermost.
    """
    if not rules:
        return None
    counts: dict[str, int] = {}
    for rule, count in rules.items():
        first = rule.partition("+")[0]
        counts[first] = counts.get(first, 0) + count
    worst = min(counts, key=lambda rule: (-counts[rule], rule))
    form = FORMS.get(worst, OTHER)
    return Remedy(worst, form.what, form.prompt, form.json_mode, form.parser)


def patch_words(remedy: Remedy, candidate: str) -> str:
    """The command that makes the patched target. candidate: `provider/model`."""
    return f'swapgate model add {candidate} --prompt-addendum "{remedy.prompt}"'
