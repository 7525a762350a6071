"""MkDocs calls these hooks while it builds the docs site (mkdocs.yml).

They add the pages beside README to the site, expand `folder/*.md` in the navigation, and
correct links: those that lead out of docs/, and those of `llms.txt` to Markdown files. They
write state diagrams as tables, because a browser would load the drawing library from another
host.
"""

import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent
# Pages of the repository that the site also has. Links to other files become plain text.
BESIDE_README = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
BLUE = "#2F6FD0"  # the logo's blue; the site's header is blue, so the logo there is white
LINK = re.compile(r"(?<!!)\[([^\]\[]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
DIAGRAM = re.compile(r"```mermaid\nstateDiagram-v2\n(.*?)```", re.DOTALL)
ARROW = re.compile(r"^ +(\w+) --> (\w+): (.+)$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages beside README, and expands `folder/*.md` in the navigation."""
    for name in BESIDE_README:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, f"project/{name.lower()}", content=text))
    logo = (ROOT / "dashboard" / "logo.svg").read_text(encoding="utf-8")
    files.append(File.generated(config, "assets/favicon.svg", content=logo))
    files.append(File.generated(config, "assets/logo.svg", content=logo.replace(BLUE, "#fff")))
    if config.nav:
        listed = set(named_pages(config.nav))
        pages = sorted(file.src_uri for file in files.documentation_pages())
        config.nav = expand(config.nav, [page for page in pages if page not in listed])
    return files


def named_pages(nav: Any) -> list[str]:
    """Lists the pages that the navigation names one by one."""
    match nav:
        case str():
            return [nav]
        case list():
            return [page for item in nav for page in named_pages(item)]
        case dict():
            return [page for item in nav.values() for page in named_pages(item)]
        case _:
            return []


def expand(nav: Any, unlisted: list[str]) -> Any:
    """Returns the navigation with `folder/*.md` replaced by the other pages there."""
    match nav:
        case list():
            return [page for item in nav for page in expand_item(item, unlisted)]
        case dict():
            return {title: expand(item, unlisted) for title, item in nav.items()}
        case _:
            return nav


def expand_item(item: Any, unlisted: list[str]) -> list[Any]:
    if isinstance(item, str) and "*" in item:
        return [page for page in unlisted if fnmatch(page, item)]
    return [expand(item, unlisted)]


def on_page_markdown(
    markdown: str,
    page: Page,
    **_: Any,
) -> str:
    """Adapts a page that was written for readers of the repository: its links and diagrams."""
    page_uri = page.file.src_uri
    # In the site, a page beside README is in `project/`.
    source = PurePosixPath(page_uri)
    if source.parent.name == "project" and source.name.upper() in map(str.upper, BESIDE_README):
        source = PurePosixPath("..", source.name.upper())

    def correct(match: re.Match[str]) -> str:
        return correct_link(match, page_uri, source.parent)

    return DIAGRAM.sub(transition_table, LINK.sub(correct, markdown))


def correct_link(
    match: re.Match[str],
    page_uri: str,
    folder: PurePosixPath,
) -> str:
    """Corrects a link of a page. A link to a page beside README leads to its place in the site.
    A link to any other file outside of docs/ becomes its text.
    """
    text = match[1]
    target = match[2]
    anchor = match[3] or ""
    if "://" in target or target.startswith("mailto:"):
        return match[0]
    path = (ROOT / "docs" / folder / target).resolve()
    to_root = "../" * page_uri.count("/")
    if path.is_relative_to(ROOT / "docs"):
        return f"[{text}]({to_root}{path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
    if path.name in BESIDE_README and path.parent == ROOT:
        return f"[{text}]({to_root}project/{path.name.lower()}{anchor})"
    return text if path.exists() else match[0]


def on_post_build(config: MkDocsConfig) -> None:
    """Lets `llms.txt` link to the site's pages, because the site has no Markdown files."""
    file = Path(config.site_dir, "llms.txt")
    text = file.read_text(encoding="utf-8")
    file.write_text(LINK.sub(_link_page, text), encoding="utf-8")


def _link_page(match: re.Match[str]) -> str:
    return f"[{match[1]}]({match[2].removesuffix('.md')}.html)"


def transition_table(diagram: re.Match[str]) -> str:
    """Writes a row per arrow: the state, the events that end it, the next state."""
    rows = [
        f"| `{before}` | `{events.replace(', ', '`, `')}` | `{after}` |"
        for before, after, events in ARROW.findall(diagram[1])
    ]
    return "\n".join(["| State | Event | Next state |", "| --- | --- | --- |", *rows])
