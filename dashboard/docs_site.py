"""Serves the docs at `/docs` beside Streamlit's pages: the built site, or, where there is none,
the Markdown of each page.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from harness import docs_pages
from harness.domain.errors import SwapgateError

PATH: Final = "/docs"


def routes() -> list[BaseRoute]:
    """Returns the routes of the docs."""
    if (docs_pages.SITE / "index.html").exists():
        site = StaticFiles(directory=docs_pages.SITE, html=True)
        return [Route(PATH, show_first_page), Mount(PATH, site)]
    return [Route(f"{PATH}/{{page:path}}", show_markdown), Route(PATH, show_markdown)]


def show_first_page(_request: Request) -> Response:
    """Sends to the site's first page, by whose folder its links count."""
    return RedirectResponse(f"{PATH}/")


def show_markdown(request: Request) -> Response:
    """Answers with a page's Markdown, as text."""
    try:
        page = docs_pages.find_page(request.path_params.get("page") or "index")
    except SwapgateError as error:
        return PlainTextResponse(f"{error}\n", status_code=404)
    return PlainTextResponse(page.markdown.read_text(encoding="utf-8"))
