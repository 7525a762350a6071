"""The dashboard's entry script: Streamlit runs it for every visit and click. It sets theme,
logo and navigation, shows the sign-in, and runs the chosen page.
"""

from pathlib import Path

import streamlit as st

from dashboard import current_user, theme

HERE = Path(__file__).parent

st.set_page_config(
    page_title="Swapgate",
    page_icon=str(HERE / "logo.svg"),
    layout="wide",
    initial_sidebar_state="collapsed",
    menu_items={},
)
st.html(theme.css())
st.logo(str(HERE / "wordmark.svg"), size="large")

page = st.navigation(
    [
        st.Page("views/overview.py", title="Overview", url_path="overview", default=True),
        st.Page("views/compare.py", title="Compare", url_path="compare"),
        st.Page("views/proposals.py", title="Proposals", url_path="proposals"),
        st.Page("views/canary.py", title="Canary", url_path="canary"),
        st.Page("views/routes.py", title="Routes & history", url_path="routes"),
        st.Page("views/providers.py", title="Providers", url_path="providers"),
        st.Page("views/sessions.py", title="Sessions", url_path="sessions"),
    ],
    position="top",
)
current_user.show_sign_in()
page.run()
