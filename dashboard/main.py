"""The dashboard's entry script: Streamlit runs it for every visit and click.

It sets up Streamlit, lists the pages, and runs the chosen page if the visitor may see it.
`views` has the pages' code. Streamlit needs the calls in this order.
"""

from datetime import timedelta
from pathlib import Path

import streamlit as st

from dashboard import current_user, markup, theme

FOLDER = Path(__file__).parent
KEEP_ALIVE_INTERVAL = timedelta(minutes=1)


@st.fragment(run_every=KEEP_ALIVE_INTERVAL)
def stay_alive() -> None:
    """Draws nothing. Every page needs a fragment, because without one a browser does not reload
    it after a restart of the dashboard.
    """


st.set_page_config(
    page_title="Swapgate",
    page_icon=str(FOLDER / "logo.svg"),
    layout="wide",
    initial_sidebar_state="collapsed",
    menu_items={},
)
st.html(theme.css(st.context.theme.type))
st.logo(str(FOLDER / "wordmark.svg"), size="large")

PAGES = {
    # The bar shows the pages on which people decide; two menus hold the other pages.
    "": [
        st.Page(
            "views/overview.py",
            title="Overview",
            url_path="overview",
            default=True,
        ),
        st.Page("views/compare.py", title="Compare", url_path="compare"),
        st.Page("views/proposals.py", title="Proposals", url_path="proposals"),
        st.Page(
            "views/canary.py",
            title="Canary",
            url_path="canary",
        ),
    ],
    "Watch": [
        st.Page(
            "views/traffic.py",
            title="Traffic & failovers",
            url_path="traffic",
        ),
        st.Page("views/shadows.py", title="Shadows", url_path="shadows"),
        st.Page("views/labels.py", title="Labels", url_path="labels"),
        st.Page("views/sessions.py", title="Sessions", url_path="sessions"),
        st.Page("views/audit.py", title="Audit", url_path="audit"),
    ],
    "Set up": [
        st.Page(
            "views/routes.py",
            title="Routes & policies",
            url_path="routes",
        ),
        st.Page("views/providers.py", title="Providers", url_path="providers"),
        st.Page(
            "views/suites.py",
            title="Suites & captures",
            url_path="suites",
        ),
        st.Page("views/keys.py", title="Keys & spending", url_path="keys"),
    ],
}
page = st.navigation(PAGES, position="top")
if current_user.show_account():
    # The bar does not show which page of a menu this is.
    section = next(name for name, pages in PAGES.items() if page in pages)
    if section:
        st.html(markup.note(f"{section} › {page.title}"))
    page.run()
    stay_alive()
