"""Writes a simulated model's answers: text, a tool call, a judgement, or filler.

If an item expects a tool call, the call has right or wrong arguments by the model's skill.
Other calls have made-up arguments that fit the tool's schema. After a call, the model repeats
the tools' results.

A judge follows fixed rules. A rubric scores 1 if the answer contains the reference, else 0.
Without a reference, it looks for a digit. Of two answers, the answer with more different words
wins; equal numbers are a tie. A canary's answer is good if it contains a digit. The profile's
skill in `judge` is the share of judgements that follow the rules; the others are reversed.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evals.scorers.judged import DATA
from evals.sim import simulated_model
from evals.sim.chat_completions import ChatRequest, SimulatedToolCall
from evals.sim.profiles import Habits, Profile, ScriptLine
from evals.sim.simulated_model import SimulatedAnswer

TRAILER = "Let me know if you would like any of these values explained."
OPENER = "Certainly. Here is my answer."
INSISTENT = re.compile(r"\b(?:alone|exactly|never)\b", re.IGNORECASE)
FILLER = (
    "this text comes from a simulated model and says nothing of interest while it shows how "
    "words arrive one after another from a provider that answers any prompt with patience"
)
WORDS = tuple(FILLER.split())
DEFAULT_WORDS = 24
MAX_WORDS = 20_000
ASKED_LENGTH = re.compile(r"\b(\d{1,5}) words\b")
ASKED_AT_ONCE = re.compile(r"\b(?:both|all) tools at once\b", re.IGNORECASE)


def answer(
    verdict: SimulatedAnswer,
    profile: Profile,
    *,
    prompt: str,
    json_asked: bool = False,
    form_asked: bool = False,
) -> str:
    """Writes the simulated model's answer to an item.

    Args:
        json_asked: the request has a `response_format`, which turns off the habits for JSON.
        form_asked: the system message insists on the form, which turns off every habit.
    """
    value = verdict.value
    habits = Habits() if form_asked else profile.habits
    place = (profile.seed, verdict.item.suite, verdict.item.id)
    if isinstance(value, dict):
        text = write_json(value)
        u = simulated_model.uniform("form", *place)
        if json_asked or u >= habits.json_fences + habits.trailing_prose:
            return text
        return f"```json\n{text}\n```" if u < habits.json_fences else f"{text}\n\n{TRAILER}"
    if isinstance(value, list) and value:  # the first of several accepted answers
        value = value[0]
    text = value if isinstance(value, str) else write_json(value)
    if "ANSWER:" in prompt:
        numbers = ", ".join(re.findall(r"\d[\d.,]*\d|\d", verdict.item.input)[:4])
        working = f"I start from {numbers or 'what is given'} and go step by step."
        return f"{working}\nANSWER: {text.rpartition('####')[2].strip()}"
    if simulated_model.uniform("verbose", *place) < habits.verbose:
        return f"{OPENER}\n\n{text}"
    return text


def insists_on_form(system: str) -> bool:
    """Returns whether a system message insists on the answer's form, by words such as
    `exactly`.
    """
    return INSISTENT.search(system) is not None


def write_json(value: Any) -> str:
    """Writes a value as plain JSON."""
    return json.dumps(value, ensure_ascii=False)


def write_filler(prompt: str) -> str:
    """Answers an unknown prompt, with the number of words that the prompt asks for."""
    length = ASKED_LENGTH.search(prompt)
    count = min(int(length[1]), MAX_WORDS) if length else DEFAULT_WORDS
    start = simulated_model.random_bits("filler", prompt) % len(WORDS)
    text = " ".join(WORDS[(start + n) % len(WORDS)] for n in range(count))
    return f"{text.capitalize()}."


def repeat_results(results: Sequence[str]) -> str:
    """Answers after tool calls. The text contains the results, so that a test can see them
    pass.
    """
    return f"The tools say: {'; '.join(results)}."


SUITE = "judge"
WORD = re.compile(r"\w+")
DIGIT = re.compile(r"\d")
CONTRARY: dict[object, object] = {
    0: 1,
    1: 0,
    "A": "B",
    "B": "A",
    "tie": "A",
    "good": "bad",
    "bad": "good",
}


def answer_as_judge(prompt: str, profile: Profile) -> str | None:
    """Answers a judge's prompt by the fixed rules; None for another prompt."""
    _, mark, data_text = prompt.rpartition(DATA)
    try:
        data = json.loads(data_text) if mark else None
    except ValueError:
        return None
    key_and_value = judge_data(data) if isinstance(data, dict) else None
    if key_and_value is None:
        return None
    key, value = key_and_value
    if simulated_model.uniform("judge", profile.seed, data_text) >= profile.skill_in(SUITE):
        value = CONTRARY[value]
    return json.dumps({"reason": "Simulated, by a rule.", key: value})


def judge_data(data: dict[str, Any]) -> tuple[str, object] | None:
    """Judges data of one of the three kinds of prompts. Returns the answer's key and value, or
    None.
    """
    if {"task", "answer"} <= data.keys():
        text, reference = (
            " ".join(str(data.get(part, "")).casefold().split())
            for part in ("answer", "reference")
        )
        return "score", int(reference in text if reference else bool(DIGIT.search(text)))
    if {"A", "B"} <= data.keys() and {"task", "conversation"} & data.keys():
        words_a, words_b = (
            len(set(WORD.findall(str(data[key]).casefold()))) for key in ("A", "B")
        )
        return "winner", "tie" if words_a == words_b else "A" if words_a > words_b else "B"
    if {"conversation", "answer"} <= data.keys():
        message = data["answer"]
        answer_text = str(message.get("content") if isinstance(message, dict) else message)
        return "verdict", "good" if DIGIT.search(answer_text) else "bad"
    return None


NAMES = ("alpha", "harbour", "lantern", "meadow", "quartz", "willow")
MAX_DEPTH = 8


def calls_for(
    request: ChatRequest,
    verdict: SimulatedAnswer | None,
    line: ScriptLine | None = None,
) -> tuple[SimulatedToolCall, ...]:
    """Returns the model's calls, empty for an answer in words.

    The model calls a tool for a script's line, for an item whose right answer is a call, or if
    `tool_choice` forces it. If any tool is required and the prompt says `both tools at once`,
    it calls all tools. Without a script it does not call again after a tool's result.
    """
    if line is not None:
        return (build_call(request, line.tool, line.arguments),) if line.tool else ()
    schemas = request.schemas
    if request.tool_choice == "none" or request.after_tool:
        return ()
    call = verdict.item.tool_call if verdict else None
    if verdict and call and call["name"] in schemas:
        wrong = verdict.value
        arguments = call["arguments"]
        if not verdict.right:
            has_arguments = isinstance(wrong, dict) and isinstance(wrong.get("arguments"), dict)
            arguments = (
                wrong["arguments"]
                if has_arguments
                else alter_arguments(arguments, request.prompt)
            )
        return (build_call(request, str(call["name"]), arguments),)
    names: Iterable[str] = (request.forced_tool,) if request.forced_tool else ()
    calls_all = request.tool_choice == "required" and request.parallel_tool_calls is not False
    if calls_all and ASKED_AT_ONCE.search(request.prompt):
        names = schemas
    return tuple(
        build_call(request, name, make_up(schemas[name], (request.prompt, name)))
        for name in names
    )


def build_call(
    request: ChatRequest,
    name: str,
    arguments: object,
) -> SimulatedToolCall:
    """Writes a call with a unique id, because clients drop a second call with the same id."""
    mark = simulated_model.random_bits("call", *request.texts, name)
    text = json.dumps(arguments, ensure_ascii=False)
    return SimulatedToolCall(f"call_{mark:016x}", name, text)


def alter_arguments(arguments: Mapping[str, Any], seed: str) -> dict[str, Any]:
    """Changes one argument, so that the call is wrong in a plausible way."""
    bits = simulated_model.random_bits(seed)
    key = sorted(arguments)[bits % len(arguments)] if arguments else "note"
    return {
        **arguments,
        key: f"{arguments.get(key, '')} {NAMES[bits % len(NAMES)]}".strip(),
    }


def make_up(
    schema: object,
    seed: Sequence[object],
    depth: int = 0,
) -> Any:
    """Invents a value that fits the schema's type, enum and lower bound.

    The first of several alternatives counts. A value that is not a schema gives None.
    """
    valid_schema = schema if isinstance(schema, dict) else {"type": "null"}
    if (
        isinstance(alternatives := valid_schema.get("anyOf"), list)
        and alternatives
        and depth < MAX_DEPTH
    ):
        return make_up(alternatives[0], seed, depth + 1)
    bits = simulated_model.random_bits(*seed)
    options = valid_schema.get(
        "enum", [valid_schema["const"]] if "const" in valid_schema else None
    )
    if isinstance(options, list) and options:
        return options[bits % len(options)]
    kind = valid_schema.get("type", "object")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind in ("object", "array") and depth >= MAX_DEPTH:
        return None
    if kind == "object":
        fields = valid_schema.get("properties")
        parts = fields.items() if isinstance(fields, dict) else ()
        return {key: make_up(part, (*seed, key), depth + 1) for key, part in parts}
    if kind == "array":
        return [make_up(valid_schema.get("items"), (*seed, 0), depth + 1)]
    minimum = valid_schema.get("minimum")
    number = minimum if isinstance(minimum, int) and abs(minimum) < 1e15 else 1
    values = {"boolean": bits % 2 == 0, "string": NAMES[bits % len(NAMES)]}
    return {
        "integer": number,
        "number": float(number),
        **values,
    }.get(str(kind))
