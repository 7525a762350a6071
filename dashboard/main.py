"""The dashboard's entry script: Streamlit runs it for every visit and click.

It sets up Streamlit, lists the pages, and runs the chosen page if the visitor may see it.
`views` has the pages' code. Streamlit needs the calls in this order.
"""

from datetime import timedelta
from pathlib import Path

import streamlit as st

from dashboard import current_user, theme

FOLDER = Path(__file__).parent
KEEP_ALIVE_INTERVAL = timedelta(minutes=1)


@st.fragment(run_every=KEEP_ALIVE_INTERVAL)
def stay_alive() -> None:
    """Draws nothing. Every page needs a fragment, because without one a browser does not reload
    it after a restart of the dashboard.
    """


st.set_page_config(
    page_title="Swapproof",
    page_icon=str(FOLDER / "logo.svg"),
    layout="wide",
    initial_sidebar_state="collapsed",
    menu_items={},
)
st.html(theme.css(st.context.theme.type))
st.logo(str(FOLDER / "wordmark.svg"), size="large")

# By menu: each page's file in `views`, which is its address too, and its title. The bar shows
# the pages on which people decide; two menus hold the other pages.
TITLES = {
    "": {
        "overview": "Overview",
        "compare": "Compare",
        "proposals": "Proposals",
        "canary": "Canary",
    },
    "Watch": {
        "traffic": "Traffic & failovers",
        "shadows": "Shadows",
        "labels": "Labels",
        "sessions": "Sessions",
        "audit": "Audit",
    },
    "Set up": {
        "routes": "Routes & policies",
        "providers": "Providers",
        "suites": "Suites & captures",
        "keys": "Keys & spending",
    },
}
PAGES = {
    section: [
        st.Page(
            f"views/{name}.py",
            title=title,
            url_path=name,
            default=name == "overview",
        )
        for name, title in titles.items()
    ]
    for section, titles in TITLES.items()
}
page = st.navigation(PAGES, position="top")
# The bar shows neither the page of a menu nor, on a phone, any page.
section = next(name for name, pages in PAGES.items() if page in pages)
if current_user.show_account(" › ".join(filter(None, (section, page.title)))):
    page.run()
    stay_alive()
