"""Finds the files that ship with Swapproof: data, migrations, defaults and pages of the docs.

`find_page` accepts the forms that people type: `gate`, `reference/cli`,
`docs/reference/config.md`. The name of a folder finds its index. `make docs` builds the docs
site, which every wheel contains.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.frame.errors import ConfigError, InputError, NotFound
from harness.frame.suggestions import did_you_mean

# The folder that contains `harness`: the checkout, or `swapproof` in a wheel (ADR 0030).
ROOT = Path(__file__).resolve().parents[2]


def path(name: str) -> Path:
    """Returns the file or folder `name`: `datasets`, `docs`, `migrations` or
    `config/default.yaml`. Raises ConfigError if this installation lacks it.
    """
    if (ROOT / name).exists():
        return ROOT / name
    raise ConfigError(
        f"this installation of Swapproof has no {name!r} in {ROOT}: install Swapproof again"
    )


DOCS: Final = ROOT / "docs"
SITE: Final = ROOT / "site"


@dataclass(frozen=True, slots=True)
class DocsPage:
    """A page of the docs. name: its path without `.md`, such as `reference/cli`."""

    name: str

    @property
    def markdown(self) -> Path:
        return DOCS / f"{self.name}.md"

    @property
    def html(self) -> Path | None:
        """Returns the page in the docs site; None if the site is not built."""
        built = SITE / f"{self.name}.html"
        return built if built.exists() else None

    @property
    def title(self) -> str:
        with self.markdown.open(encoding="utf-8") as lines:
            return next(
                (line[2:].strip() for line in lines if line.startswith("# ")),
                self.name,
            )


def list_pages() -> list[DocsPage]:
    """Lists all pages by name. Raises ConfigError if the docs are not installed."""
    folder = path("docs")
    names = (
        file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.md")
    )
    return [DocsPage(name) for name in sorted(names)]


def find_page(name: str) -> DocsPage:
    """Finds a page by its path or by the last part of its path.

    Raises NotFound if no page matches, InputError if several do, ConfigError without docs.
    """
    plain_name = _normalize_name(name)
    pages = list_pages()
    exact = [page for page in pages if _normalize_name(page.name) == plain_name]
    matching = exact or [
        page for page in pages if _normalize_name(page.name).rpartition("/")[2] == plain_name
    ]
    if not matching:
        names = [page.name for page in pages]
        suggestion = did_you_mean(name, [*names, *(path.rpartition("/")[2] for path in names)])
        raise NotFound(
            f"the docs have no page {name!r}{suggestion}; `swapproof docs list` shows all pages"
        )
    if len(matching) > 1:
        matches = ", ".join(page.name for page in matching)
        raise InputError(f"{name!r} matches several pages: {matches}; add the folder")
    return matching[0]


def _normalize_name(name: str) -> str:
    """Returns a page's name in lower case, with `-` for `_`, and without `docs/`, `.md`,
    `.html` and `/index`.
    """
    lowered = name.strip().lower().replace("_", "-").removeprefix("docs/")
    return lowered.removesuffix(".md").removesuffix(".html").removesuffix("/index")
