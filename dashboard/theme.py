"""Palettes for light and dark mode with a contrast of 4.5:1 or more, and the style sheet.

`labels.Tone` has the meanings of the colours. styles.css has the rules; this module writes
the colours before them as CSS variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Final

from dashboard.labels import Tone

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as #RRGGBB. `…_wash` is the pale background of a tone, `ground` the page's
    background, and `raised` the cards' background.
    """

    better: str
    worse: str
    undecided: str
    neutral: str
    ground: str
    raised: str
    text: str
    line: str
    primary: str
    better_wash: str
    worse_wash: str
    undecided_wash: str
    neutral_wash: str

    def colour_for(self, tone: Tone) -> str:
        return str(getattr(self, tone.value))


_COLOURS: Final = {  # name: (light, dark)
    "better": ("#0B5CAD", "#4FB6FF"),
    "worse": ("#B3470B", "#FF9D57"),
    "undecided": ("#7A5600", "#F2C14E"),
    "neutral": ("#546173", "#A3B1C0"),
    "ground": ("#FFFFFF", "#10151C"),
    "raised": ("#F5F7FA", "#1A212B"),
    "text": ("#1A2330", "#E8EDF3"),
    "line": ("#DDE3EA", "#2D3744"),
    "primary": ("#1F5FBF", "#2F6FD0"),
    "better_wash": ("#EAF3FC", "#122436"),
    "worse_wash": ("#FDF0E8", "#33210F"),
    "undecided_wash": ("#FFF6DC", "#332B10"),
    "neutral_wash": ("#F3F5F8", "#1A212B"),
}
LIGHT: Final = Palette(**{name: light for name, (light, _) in _COLOURS.items()})
DARK: Final = Palette(**{name: dark for name, (_, dark) in _COLOURS.items()})


def palette(theme: str | None) -> Palette:
    """Returns the palette.

    Args:
        theme: `dark`, `light`, or None until the browser reports it.
    """
    return DARK if theme == "dark" else LIGHT


def streamlit_options() -> Mapping[str, object]:
    """Returns Streamlit's options for fonts and both themes."""
    options: dict[str, object] = {
        "theme.font": FONT,
        "theme.baseRadius": "10px",
        "theme.showWidgetBorder": True,
    }
    for name, colours in (("light", LIGHT), ("dark", DARK)):
        options |= {
            f"theme.{name}.primaryColor": colours.primary,
            f"theme.{name}.backgroundColor": colours.ground,
            f"theme.{name}.secondaryBackgroundColor": colours.raised,
            f"theme.{name}.textColor": colours.text,
            f"theme.{name}.borderColor": colours.line,
            f"theme.{name}.dataframeBorderColor": colours.line,
            f"theme.{name}.linkColor": colours.better,
        }
    return options


@cache
def css(theme: str | None = None) -> str:
    """Writes the style sheet: our colours as variables, then styles.css. Streamlit sets
    `color-scheme` on its root, and light-dark() follows it. Dialogs are outside that root, so
    the sheet sets theirs.
    """
    scheme = theme if theme in ("light", "dark") else "light dark"
    variables = "".join(
        f"--sg-{field.name.replace('_', '-')}:"
        f"light-dark({getattr(LIGHT, field.name)},{getattr(DARK, field.name)});"
        for field in fields(Palette)
    )
    sheet = Path(__file__).with_name("styles.css").read_text(encoding="utf-8")
    dialogs = f"[role=dialog]{{color-scheme:{scheme}}}"
    return f"<style>:root,.stApp{{{variables}}}{dialogs}{sheet}</style>"
