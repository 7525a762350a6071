"""The scorer `ifeval` scores the public IFEval set, strict and loose as its authors score it.

The target is the object with `instruction_id_list` and `kwargs` (target_field:
`instruction_id_list+kwargs`). An item with an instruction that we cannot check is left out of
the suite and counted there.

The instructions follow google-research/instruction_following_eval (Zhou et al. 2023,
arXiv:2311.07911). Sentences and words are split by our own rules instead of NLTK's, so that a
count may differ by one in texts with abbreviations. `language:response_language` is checked for
languages that alone use their script; the others cannot be told apart without a language model.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from evals.scorers.interface import EMPTY_ANSWER, Options, Scorer, ScoreResult, score_result
from evals.scorers.json_repair import loads
from evals.scorers.unwrap import inside_fence, paragraphs, sentences, word_count
from evals.suites.items import Item
from harness.domain.errors import InputError

Params = Mapping[str, Any]

# Unicode blocks of scripts with one (common) language each.
SCRIPTS: Final[Mapping[str, str]] = {
    "bn": "\u0980-\u09ff",
    "el": "\u0370-\u03ff",
    "gu": "\u0a80-\u0aff",
    "he": "\u0590-\u05ff",
    "ja": "\u3040-\u30ff",
    "kn": "\u0c80-\u0cff",
    "ko": "\uac00-\ud7af",
    "ml": "\u0d00-\u0d7f",
    "pa": "\u0a00-\u0a7f",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "th": "\u0e00-\u0e7f",
}


def compares(count: int, relation: str, wanted: int) -> bool:
    return count >= wanted if relation == "at least" else count < wanted


def as_json(text: str) -> bool:
    fenced = inside_fence(text)
    return loads((text if fenced is None else fenced).strip()) is not None


def highlights(text: str) -> int:
    single = re.findall(r"\*[^\n*]*\*", text)
    double = re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(highlight.strip("*").strip()) for highlight in [*single, *double])


def bullet_list(text: str) -> int:
    return len(re.findall(r"^[^\S\n]*\*[^*].*$", text, re.MULTILINE)) + len(
        re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)
    )


def sections(text: str, splitter: str) -> int:
    return len(re.findall(rf"\s?{re.escape(splitter)}\s?\d+\s?", text))


def starred_paragraphs(text: str) -> int | None:
    """Parts between `***`; None when a part in the middle is empty."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    if any(not part for part in parts[1:-1]):
        return None
    return sum(bool(part) for part in parts)


def nth_begins(text: str, params: Params) -> bool:
    blocks, nth = paragraphs(text), params["nth_paragraph"]
    if len(blocks) != params["num_paragraphs"] or nth > len(blocks):
        return False
    words = blocks[nth - 1].split()
    first = words[0].strip().lstrip("'\"") if words else ""
    return re.split(r"[.,?!'\"]", first)[0].casefold() == str(params["first_word"]).casefold()


def postscript(text: str, marker: str) -> bool:
    spelled = r"p\.\s?p\.\s?s" if marker == "P.P.S" else r"p\.\s?s\."
    pattern = spelled if marker in ("P.P.S", "P.S.") else re.escape(marker.casefold())
    return re.search(rf"{pattern}.*$", text.casefold(), re.MULTILINE) is not None


def two_responses(text: str) -> bool:
    parts = text.split("******")
    filled = [part.strip() for part in parts if part.strip()]
    empty_within = any(not part.strip() for part in parts[1:-1])
    return not empty_within and len(filled) == 2 and filled[0] != filled[1]


def capital_words(text: str) -> int:
    return sum(word.isupper() for word in re.findall(r"[\w'’-]+", text))


def in_latin(text: str) -> bool:
    """The original asks a language detector for English; we ask for its letters."""
    letters = [char for char in text if char.isalpha()]
    return bool(letters) and sum(char.isascii() for char in letters) >= 0.9 * len(letters)


def in_language(text: str, language: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    own = re.findall(f"[{SCRIPTS[language]}]", "".join(letters))
    return bool(letters) and len(own) >= 0.5 * len(letters)


def any_words(text: str) -> int:
    return len(re.findall(r"\w+", text))


KINDS: Final[Mapping[str, Callable[[str, Params], bool]]] = {
    "change_case:capital_word_frequency": lambda t, p: compares(
        capital_words(t), p["capital_relation"], p["capital_frequency"]
    ),
    "change_case:english_capital": lambda t, _: t.isupper() and in_latin(t),
    "change_case:english_lowercase": lambda t, _: t.islower() and in_latin(t),
    "combination:repeat_prompt": lambda t, p: (
        t.strip().casefold().startswith(p["prompt_to_repeat"].strip().casefold())
    ),
    "combination:two_responses": lambda t, _: two_responses(t),
    "detectable_content:number_placeholders": lambda t, p: (
        len(re.findall(r"\[[^\[\]\n]*\]", t)) >= p["num_placeholders"]
    ),
    "detectable_content:postscript": lambda t, p: postscript(t, p["postscript_marker"]),
    "detectable_format:constrained_response": lambda t, _: any(
        phrase in t
        for phrase in ("My answer is yes.", "My answer is no.", "My answer is maybe.")
    ),
    "detectable_format:json_format": lambda t, _: as_json(t),
    "detectable_format:multiple_sections": lambda t, p: (
        sections(t, p["section_spliter"]) >= p["num_sections"]
    ),
    "detectable_format:number_bullet_lists": lambda t, p: bullet_list(t) == p["num_bullets"],
    "detectable_format:number_highlighted_sections": lambda t, p: (
        highlights(t) >= p["num_highlights"]
    ),
    "detectable_format:title": lambda t, _: any(
        title.strip() for title in re.findall(r"<<([^\n<>]+)>>", t)
    ),
    "keywords:existence": lambda t, p: all(
        word.casefold() in t.casefold() for word in p["keywords"]
    ),
    "keywords:forbidden_words": lambda t, p: (
        not any(word_count(t, word) for word in p["forbidden_words"])
    ),
    "keywords:frequency": lambda t, p: compares(
        t.casefold().count(p["keyword"].casefold()), p["relation"], p["frequency"]
    ),
    "keywords:letter_frequency": lambda t, p: compares(
        t.casefold().count(p["letter"].casefold()), p["let_relation"], p["let_frequency"]
    ),
    "language:response_language": lambda t, p: in_language(t, p["language"]),
    "length_constraints:nth_paragraph_first_word": nth_begins,
    "length_constraints:number_paragraphs": lambda t, p: (
        starred_paragraphs(t) == p["num_paragraphs"]
    ),
    "length_constraints:number_sentences": lambda t, p: compares(
        sentences(t), p["relation"], p["num_sentences"]
    ),
    "length_constraints:number_words": lambda t, p: compares(
        any_words(t), p["relation"], p["num_words"]
    ),
    "punctuation:no_comma": lambda t, _: "," not in t,
    "startend:end_checker": lambda t, p: (
        t.strip().strip('"').casefold().endswith(p["end_phrase"].strip().casefold())
    ),
    "startend:quotation": lambda t, _: (
        len(t.strip()) > 1 and t.strip()[0] == '"' == t.strip()[-1]
    ),
}

PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "change_case:capital_word_frequency": ("capital_relation", "capital_frequency"),
    "combination:repeat_prompt": ("prompt_to_repeat",),
    "detectable_content:number_placeholders": ("num_placeholders",),
    "detectable_content:postscript": ("postscript_marker",),
    "detectable_format:multiple_sections": ("section_spliter", "num_sections"),
    "detectable_format:number_bullet_lists": ("num_bullets",),
    "detectable_format:number_highlighted_sections": ("num_highlights",),
    "keywords:existence": ("keywords",),
    "keywords:forbidden_words": ("forbidden_words",),
    "keywords:frequency": ("keyword", "relation", "frequency"),
    "keywords:letter_frequency": ("letter", "let_relation", "let_frequency"),
    "language:response_language": ("language",),
    "length_constraints:nth_paragraph_first_word": (
        "num_paragraphs",
        "nth_paragraph",
        "first_word",
    ),
    "length_constraints:number_paragraphs": ("num_paragraphs",),
    "length_constraints:number_sentences": ("relation", "num_sentences"),
    "length_constraints:number_words": ("relation", "num_words"),
    "startend:end_checker": ("end_phrase",),
}


def unsupported(kind: str, params: Params) -> str | None:
    if kind not in KINDS:
        return f"instruction {kind} is not known"
    missing = [name for name in PARAMETERS.get(kind, ()) if params.get(name) is None]
    if missing:
        return f"instruction {kind} lacks {', '.join(missing)}"
    if kind == "language:response_language" and params["language"] not in SCRIPTS:
        return f"language {params['language']} cannot be told from its script"
    return None


def pairs(item: Item) -> list[tuple[str, dict[str, Any]]]:
    """(instruction, parameters). Raises InputError when the target is not IFEval's."""
    target = item.target
    kinds = target.get("instruction_id_list") if isinstance(target, dict) else None
    params = target.get("kwargs") if isinstance(target, dict) else None
    if (
        not isinstance(kinds, list)
        or not isinstance(params, list)
        or not kinds
        or len(kinds) != len(params)
        or not all(isinstance(param, dict) for param in params)
    ):
        raise InputError(
            f"item {item.id!r}: scorer 'ifeval' needs target_field "
            "'instruction_id_list+kwargs', two lists of the same length"
        )
    return list(zip(cast("list[str]", kinds), params, strict=True))


def loosened(answer: str) -> list[str]:
    lines = answer.split("\n")
    cuts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [text for cut in cuts for text in (cut, cut.replace("*", "")) if text.strip()]


def ifeval(answer: str, item: Item, options: Options) -> ScoreResult:
    """Scores 1 if every instruction is followed, else 0; with `graded` the share of them."""
    if not answer.strip():
        return EMPTY_ANSWER
    told = pairs(item)
    strict = [KINDS[kind](answer, params) for kind, params in told]
    loose = [
        kept or any(KINDS[kind](text, params) for text in loosened(answer))
        for kept, (kind, params) in zip(strict, told, strict=True)
    ]

    def score(kept: list[bool]) -> float:
        return sum(kept) / len(kept) if options["graded"] else float(all(kept))

    broken = [
        kind
        for (kind, _), kept, forgiven in zip(told, strict, loose, strict=True)
        if forgiven and not kept
    ]
    return score_result(score(strict), score(loose), broken[0] if broken else "")


def check(item: Item, _options: Options) -> str | None:
    reasons = [unsupported(kind, params) for kind, params in pairs(item)]
    return next((reason for reason in reasons if reason), None)


IFEVAL = Scorer("ifeval", ifeval, {"graded": False}, check=check)
