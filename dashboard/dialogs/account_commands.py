"""Shows the commands by which a person signs in to an account that serves models: it is done at
a terminal, which waits while the person types a code elsewhere.
"""

from collections.abc import Sequence

import streamlit as st

from dashboard.text import html
from dashboard.text.html import escape


def show(kinds: Sequence[str]) -> None:
    """Shows the commands by which people sign in to accounts of these kinds."""
    for kind in kinds:
        lines = f"oauth:\n  {kind}:\n    client_id: YOUR-CLIENT-ID"
        # Wrapped: what scrolls sideways on a phone cannot be reached by keyboard.
        st.code(lines, language="yaml", wrap_lines=True)
        st.code(f"swapgate provider key login {kind}", language=None, wrap_lines=True)
    link = html.docs_link("how-to/credentials", "Signing in")
    words = (
        "Write the lines into swapgate.yaml, with the id of your application at the vendor. "
        "Then run the command on Swapgate's machine: it shows an address and a code, which you "
        "type in a browser anywhere."
    )
    st.html(html.block(f'<p class="note">{escape(words)} {link}</p>'))
