"""A field for a JSON object: what a scorer or a request takes beyond texts and numbers."""

import json
from typing import Final

import streamlit as st

HEIGHT_PX: Final = 72


def ask_object(label: str, *, key: str, example: str = "") -> tuple[dict[str, object], str]:
    """Shows a field for a JSON object; returns what stands in it, and what is wrong with it."""
    typed = (st.text_area(label, key=key, placeholder=example, height=HEIGHT_PX) or "").strip()
    try:
        found = json.loads(typed or "{}")
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found, ""
    return {}, f"{label}: this is no JSON object{f', such as {example}' if example else ''}."
