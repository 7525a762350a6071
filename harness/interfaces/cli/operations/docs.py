"""`swapproof docs` and `swapproof completion`."""

import webbrowser
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from harness.frame import package_data
from harness.frame.errors import ConfigError
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import arg, command, opt
from harness.interfaces.cli.frame.session import Session

FOLDER = Path(__file__).resolve().parents[4] / "docs"


@click.group()
def docs() -> None:
    """The docs that ship with Swapproof."""


@command(docs, "open", example="swapproof docs open how-to/own-suites")
def open_page(
    session: Session,
    page: str = arg(default="index"),
    *,
    text: bool = opt("Print the page instead of opening a browser."),
) -> None:
    """Open a page of the docs in the browser, or print it.

    PAGE is a path or its last part: `gate`, `reference/config`, `runbook`. Without a browser or
    a built site, the command prints the page.
    """
    page_files = package_data.find_page(page)
    if session.json:
        output.document(
            {
                "page": page_files.name,
                "title": page_files.title,
                "markdown": str(page_files.markdown),
                "html": None if page_files.html is None else str(page_files.html),
            }
        )
    elif not text and page_files.html is not None and open_browser(page_files.html.as_uri()):
        output.note(f"opened {page_files.html}")
    else:
        output.note(str(page_files.markdown))
        click.echo(page_files.markdown.read_text(encoding="utf-8"), nl=False)


def open_browser(address: str) -> bool:
    """Opens the address in a browser. Returns False without a browser."""
    try:
        return webbrowser.get().open(address)
    except webbrowser.Error:
        return False


@command(docs, "list", example="swapproof docs list")
def list_pages() -> None:
    """List the pages of the docs."""
    output.listing(
        package_data.list_pages(),
        lambda page: {"PAGE": page.name, "TITLE": page.title},
        empty="there are no pages",
        as_document=lambda pages: [{"page": page.name, "title": page.title} for page in pages],
    )


def _find_program() -> click.Command:
    return click.get_current_context().find_root().command


@command(docs, hidden=True, example="swapproof docs generate")
def generate(
    session: Session,
    *,
    check: bool = opt("Write nothing; exit code 1 if a page is stale."),
) -> int:
    """Regenerate the reference pages, the diagrams and the files for coding agents."""
    try:
        from docs_reference.pages import generated_files  # noqa: PLC0415 - only in a checkout
    except ModuleNotFoundError:
        raise ConfigError("only a checkout can generate docs") from None
    stale = {
        path: text
        for path, text in generated_files(_find_program(), FOLDER).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    names = [path.relative_to(FOLDER.parent).as_posix() for path in stale]
    if not check:
        for path, text in stale.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if session.json:
        output.document({"stale" if check else "written": names})
    elif check:
        for name in names:
            click.echo(f"{name} is stale: run `make docs`")
    else:
        click.echo(f"written: {', '.join(names) or 'nothing, as no page changed'}")
    return 1 if check and stale else 0


VARIABLE = "_SWAPPROOF_COMPLETE"


@command(example="swapproof completion bash >> ~/.bashrc")
def completion(shell: str = arg(type=click.Choice(["bash", "zsh", "fish"]))) -> None:
    """Print the completion script of a shell.

    For bash, run `swapproof completion bash > ~/.swapproof-complete` once, and add
    `. ~/.swapproof-complete` to ~/.bashrc.
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None  # noqa: S101 - click supports these shells
    click.echo(completion_class(_find_program(), {}, "swapproof", VARIABLE).source())
