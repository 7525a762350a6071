"""Joins the subjects: only the modules of this folder choose adapters and connect them to use
cases.

`installation` builds the `Context` that all use cases get. The modules of the processes are
`data_plane` and `router_process` (router), `control_schedule` (control), `eval_workers` and
`agents`; `processes` starts them together. `set_up`, `seed` and `suite_import` write files and
first rows. The rules of a subject are in the subject's folder.
"""
