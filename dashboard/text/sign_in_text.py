"""The sign-in page as HTML: a field for a management key, the question whether to sign in by a
link, or why nobody was signed in. It stands outside Streamlit, whose pages cannot set cookies.
"""

from dataclasses import dataclass
from typing import Final

from dashboard import theme
from dashboard.text.html import escape, failure, strong
from harness.domain.operations.access import Actor
from harness.domain.operations.dashboard_session import SIGN_IN_PATH

# A link stands behind the address's `#`, which browsers do not send: the page reads it, takes
# it out of the address, and posts it.
_SCRIPT: Final = """
const link = location.hash.slice(1), form = document.getElementById("by-link");
if (link && form) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.link.value = link;
  form.submit();
}
addEventListener("hashchange", () => location.reload());
"""


@dataclass(frozen=True, slots=True)
class PageFrame:
    """What each form of the page brings along."""

    nonce: str  # of the page's own script and styles
    going_to: str  # the page to show next


def ask_key(frame: PageFrame, problem: str = "") -> str:
    """Renders the form for a management key; with a link behind `#`, the page posts that."""
    field = (
        '<label for="key">Management key</label>'
        '<input id="key" name="key" type="password" autocomplete="off" autofocus required>'
        "<button>Sign in</button>"
    )
    ways = (
        '<p class="note">Or open a sign-in link: <code>swapgate key sign-in-link</code> prints '
        "one. It signs in once, and needs no key here.</p>"
        f'<p class="note"><a href="{escape(frame.going_to)}">Read without signing in</a></p>'
    )
    hidden = f'<form id="by-link" method="post" action="{SIGN_IN_PATH}" hidden>{_going(frame)}'
    hidden += '<input type="hidden" name="link"></form>'
    refused = failure("Not signed in", problem, "") if problem else ""
    return _page(frame, f"{refused}{_form(frame, field)}{ways}{hidden}")


def ask_whether(frame: PageFrame, link: str, actor: Actor, before: Actor | None) -> str:
    """Asks whether to sign in by a link: whoever sent it may have meant somebody else."""
    who = f"{strong(actor.name)} ({escape(actor.role.name.lower())})"
    if actor.key is None:
        who += ", the operator of this machine"
    now = ""
    if before is not None:
        now = f"<p>You are signed in as {strong(before.name)}; that ends then.</p>"
    field = (
        f"<p>This link signs you in as {who}. What you do then is recorded under this name.</p>"
        f'{now}<input type="hidden" name="link" value="{escape(link)}">'
        f'<button name="confirm" value="yes">Sign in as {escape(actor.name)}</button>'
    )
    refuse = (
        '<p class="note">Is that not you? Then close this page, and tell who sent the link.</p>'
    )
    return _page(frame, f"{_form(frame, field)}{refuse}")


def refuse(frame: PageFrame, why: str) -> str:
    """Says why nobody was signed in, with the way on."""
    on = f'<p><a href="{SIGN_IN_PATH}">Sign in another way</a></p>'
    return _page(frame, f"{failure('Not signed in', why, '')}{on}")


def _form(frame: PageFrame, fields: str) -> str:
    return f'<form method="post" action="{SIGN_IN_PATH}">{_going(frame)}{fields}</form>'


def _going(frame: PageFrame) -> str:
    return f'<input type="hidden" name="next" value="{escape(frame.going_to)}">'


def _page(frame: PageFrame, body: str) -> str:
    styles = theme.css().replace("<style>", f'<style nonce="{frame.nonce}">', 1)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sign in · Swapgate</title>{styles}</head>"
        '<body class="sg-sign-in"><main class="sg"><h1><b>Sign in</b> to Swapgate</h1>'
        f'{body}</main><script nonce="{frame.nonce}">{_SCRIPT}</script></body></html>'
    )
