"""Names the maker of a model, so that no judge compares answers of its own family. Pure.

A judge tends to prefer its own family's answers. The maker comes from the model's name: a kind
of provider owns some names (`harness.providers.kinds`), and vendors without a kind own others.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from harness.providers.kinds import LOCAL_KEYWORDS, PROVIDER_KINDS, ProviderGroup

# Beginnings of model names of vendors for which Swapproof has no kind with such names.
_OTHER_MAKERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("llama", "meta-llama", "codellama"), "meta"),
    **dict.fromkeys((*LOCAL_KEYWORDS, "qwq"), "alibaba"),
    **dict.fromkeys(("command", "c4ai", "aya"), "cohere"),
    **dict.fromkeys(("nova", "titan", "amazon"), "amazon"),
    **dict.fromkeys(("open-mistral", "open-mixtral", "mixtral"), "mistral"),
    "gpt-oss": "openai",
    "grok": "xai",
    "phi": "microsoft",
    "kimi": "moonshot",
    "glm": "zhipu",
    "minimax": "minimax",
    "granite": "ibm",
    "nemotron": "nvidia",
    "jamba": "ai21",
}

_FINE_TUNED: Final = "ft:"  # `ft:BASE:OWNER:SUFFIX:ID`


def maker_of_model(model: str) -> str:
    """Returns the maker of a model; empty if the name does not show it.

    Ignores a gateway's or a cloud's parts before the name: `openai/gpt-4o`,
    `eu.anthropic.claude-sonnet-4`.
    """
    name = model.lower().rpartition("/")[2]
    if name.startswith(_FINE_TUNED):
        # The owner of a fine-tuned model chooses all parts after the base model's name.
        return maker_of_model(name.removeprefix(_FINE_TUNED).partition(":")[0])
    for part in reversed(model.lower().replace(":", "/").split("/")):
        for name in (part, *(piece for piece in part.split(".") if not piece.isdigit())):
            if maker := _maker_of_name(name):
                return maker
    return ""


def _maker_of_name(name: str) -> str:
    owned = {
        keyword: kind.name
        for kind in PROVIDER_KINDS.values()
        if kind.group is ProviderGroup.HOSTED
        for keyword in kind.keywords
    }
    fitting = [keyword for keyword in (*owned, *_OTHER_MAKERS) if name.startswith(keyword)]
    longest = max(fitting, key=len, default="")
    return {**owned, **_OTHER_MAKERS}.get(longest, "")


def find_shared_maker(judge: str, models: Sequence[str]) -> str:
    """Returns why a judge may not compare these models' answers; empty if it may.

    Args:
        judge: name of a model.
        models: names of models.

    A maker that a name does not show may be the same.
    """
    maker = maker_of_model(judge)
    if not maker:
        return f"the name {judge} does not show who made the judge"
    for model in models:
        own = maker_of_model(model)
        if own == maker:
            return f"the judge {judge} and {model} are both of {maker}"
        if not own:
            return f"the name {model} does not show who made it"
    return ""
