"""Writes texts that follow a given set of IFEval instructions, to test its scorer. Not every
set of instructions is within its power; what it wrote is scored to find out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Params = Mapping[str, Any]
Told = Sequence[tuple[str, Params]]

FILLERS = ("tea", "milk", "soup", "bowl", "cup", "pan", "fish", "crab", "gym", "dry", "zzz")
IN_SCRIPT = {
    "bn": "চা", "el": "τσάι", "gu": "ચા", "he": "תה", "ja": "おちゃ", "kn": "ಚಹಾ",
    "ko": "녹차", "ml": "ചായ", "pa": "ਚਾਹ", "ta": "தேநீர்", "te": "తేనీరు", "th": "ชา",
}  # fmt: skip


def follows(told: Told) -> str:
    """A text for all of them, built from the inside out."""
    params = dict(told)
    body = _paragraphs(params, _words(params))
    body = _extras(params, body)
    body = _framed(params, body)
    if "change_case:english_capital" in params:
        body = body.upper()
    if "change_case:english_lowercase" in params:
        body = body.lower()
    if "detectable_format:json_format" in params:
        body = json.dumps({"text": body}, ensure_ascii=False)
    if "startend:quotation" in params:
        body = f'"{body}"'
    return body


def _words(params: Mapping[str, Params]) -> list[str]:
    """What the sentences are made of."""
    filler = _filler(params)
    words = [filler] * 4
    kind = params.get("length_constraints:number_words", {})
    if kind.get("relation") == "at least":
        words = [filler] * kind["num_words"]
    words += params.get("keywords:existence", {}).get("keywords", [])
    wanted = params.get("keywords:frequency", {})
    if wanted.get("relation") == "at least":
        words += [wanted["keyword"]] * wanted["frequency"]
    wanted = params.get("keywords:letter_frequency", {})
    if wanted.get("let_relation") == "at least":
        words += [wanted["letter"]] * wanted["let_frequency"]
    wanted = params.get("change_case:capital_word_frequency", {})
    if wanted.get("capital_relation") == "at least":
        words += ["TEA"] * wanted["capital_frequency"]
    return words


def _filler(params: Mapping[str, Params]) -> str:
    """A word that breaks nothing."""
    language = params.get("language:response_language", {}).get("language")
    if language:
        return IN_SCRIPT[language]
    banned = [
        *params.get("keywords:forbidden_words", {}).get("forbidden_words", ()),
        params.get("keywords:frequency", {}).get("keyword", " "),
        params.get("keywords:letter_frequency", {}).get("letter", " "),
    ]
    free = [f for f in FILLERS if not any(word.casefold() in f for word in banned)]
    return (free or FILLERS)[0]


def _paragraphs(params: Mapping[str, Params], words: Sequence[str]) -> str:
    sentences = params.get("length_constraints:number_sentences", {})
    at_least = sentences.get("relation") == "at least"
    text = " ".join(words) + "."
    if at_least:
        text += " " + " ".join([f"{words[0]}."] * sentences["num_sentences"])
    if "length_constraints:nth_paragraph_first_word" in params:
        nth = params["length_constraints:nth_paragraph_first_word"]
        blocks = [text, *[f"{words[0]}."] * (nth["num_paragraphs"] - 1)]
        at = nth["nth_paragraph"] - 1
        blocks[at] = f"{nth['first_word']} {blocks[at]}"
        return "\n\n".join(blocks)
    parts = params.get("length_constraints:number_paragraphs", {}).get("num_paragraphs", 1)
    return "\n***\n".join([text, *[f"{words[0]}."] * (parts - 1)])


def _extras(params: Mapping[str, Params], body: str) -> str:
    """Marks, lists and sections, each on lines of its own."""
    filler = _filler(params)
    lines = [body]
    marked = params.get("detectable_format:number_highlighted_sections")
    if marked:
        lines.append(" ".join([f"{filler} *{filler}*"] * marked["num_highlights"]))
    held = params.get("detectable_content:number_placeholders")
    if held:
        lines.append(" ".join([f"[{filler}]"] * held["num_placeholders"]))
    listed = params.get("detectable_format:number_bullet_lists")
    if listed:
        lines += [f"* {filler}"] * listed["num_bullets"]
    parted = params.get("detectable_format:multiple_sections")
    if parted:
        head = parted["section_spliter"]
        lines += [f"{head} {n}\n{filler}" for n in range(1, parted["num_sections"] + 1)]
    if "detectable_format:constrained_response" in params:
        lines.append("My answer is yes.")
    return "\n".join(lines)


def _framed(params: Mapping[str, Params], body: str) -> str:
    """What has to stand first or last."""
    if "detectable_format:title" in params:
        body = f"<<{_filler(params)}>>\n{body}"
    if "combination:two_responses" in params:
        body = f"{body}\n******\n{body} {_filler(params)}"
    if "combination:repeat_prompt" in params:
        body = f"{params['combination:repeat_prompt']['prompt_to_repeat']}\n{body}"
    if "detectable_content:postscript" in params:
        body = f"{body}\n{params['detectable_content:postscript']['postscript_marker']} ok"
    if "startend:end_checker" in params:
        body = f"{body}\n{params['startend:end_checker']['end_phrase']}"
    return body
