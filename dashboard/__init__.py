"""Shows the control plane's state on pages, whose buttons call the use cases of `harness`.

`serve` starts it, `main` is the script that Streamlit runs, and `views` has a module for each
page. The pages share `page_frame` (errors, banners, search), `dialog_forms` (buttons and
dialogs), `markup` (HTML), `labels` (words), `plots` (charts) and `theme` (colours).
`current_user` and `sign_in_page` find the actor.

A page decides nothing: rules, texts of states and permissions come from `harness`. Every text
from outside passes `markup.escape`.
"""
