"""What an `api_base` must say where a kind's paths need it. Pure."""

import re
from collections.abc import Mapping
from typing import Final

from harness.domain.errors import InputError

# By kind: how an `api_base` ends, and one that is right.
_PLACES: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "bedrock": (
        re.compile(r"(?!.*/v1/?$).+"),  # that ending is of its other API
        "https://bedrock-runtime.REGION.amazonaws.com",
    ),
    "vertex": (
        re.compile(r".*/projects/[^/]+/locations/[^/]+/publishers/google/?"),
        (
            "https://REGION-aiplatform.googleapis.com/v1/"
            "projects/PROJECT/locations/REGION/publishers/google"
        ),
    ),
}


def api_base_example(kind: str) -> str:
    """What the `api_base` of such a provider looks like; empty where it may be anything."""
    return _PLACES[kind][1] if kind in _PLACES else ""


def check_api_base_path(kind: str, url: str) -> None:
    """Raises InputError for none, or one below which this kind's paths do not stand."""
    if not url:
        like = f": {example}" if (example := api_base_example(kind)) else ""
        raise InputError(f"a provider of kind {kind!r} needs an api_base{like}")
    if kind not in _PLACES:
        return
    ending, example = _PLACES[kind]
    if not ending.fullmatch(url):
        raise InputError(f"api_base of a provider of kind {kind!r} is {example}")
