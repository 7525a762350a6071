"""Writes a simulated model's answer as text with its profile's habits (code fences, prose
around it), and filler for a prompt that is no item.
"""

import json
import re
from typing import Any

from evals.sim import text_numbers
from evals.sim.profiles import Habits, Profile
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
MOST_WORDS = 20_000
ASKED_LENGTH = re.compile(r"\b(\d{1,5}) words\b")


def answer(
    verdict: SimulatedAnswer,
    profile: Profile,
    *,
    prompt: str,
    json_asked: bool = False,
    form_asked: bool = False,
) -> str:
    """Writes the simulated model's answer to an item.

    json_asked: the request has a `response_format`, which keeps JSON bare whatever the habits.
    form_asked: its system message insists on the form, which ends every habit.
    """
    value = verdict.value
    habits = Habits() if form_asked else profile.habits
    place = (profile.seed, verdict.item.suite, verdict.item.id)
    if isinstance(value, dict):
        text, u = bare(value), text_numbers.uniform("form", *place)
        if json_asked or u >= habits.json_fences + habits.trailing_prose:
            return text
        return f"```json\n{text}\n```" if u < habits.json_fences else f"{text}\n\n{TRAILER}"
    if isinstance(value, list) and value:  # of several accepted answers the first
        value = value[0]
    text = value if isinstance(value, str) else bare(value)
    if "ANSWER:" in prompt:
        numbers = ", ".join(re.findall(r"\d[\d.,]*\d|\d", verdict.item.input)[:4])
        working = f"I start from {numbers or 'what is given'} and go step by step."
        return f"{working}\nANSWER: {text.rpartition('####')[2].strip()}"
    if text_numbers.uniform("verbose", *place) < habits.verbose:
        return f"{OPENER}\n\n{text}"
    return text


def insists_on_form(system: str) -> bool:
    """Whether a system message tells a model to keep to the form."""
    return INSISTENT.search(system) is not None


def bare(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def filler(prompt: str) -> str:
    """The harmless answer to a prompt that is no item: as long as `N words` in it asks for."""
    asked = ASKED_LENGTH.search(prompt)
    count = min(int(asked[1]), MOST_WORDS) if asked else DEFAULT_WORDS
    start = text_numbers.random_bits("filler", prompt) % len(WORDS)
    text = " ".join(WORDS[(start + n) % len(WORDS)] for n in range(count))
    return f"{text.capitalize()}."
