"""Operating an installation: alerts, keys and people, sign-in, captured requests, integrity,
the control process's jobs, and queries for lists and pages.

Interfaces call these functions. `harness.proposals` and `harness.canary` decide about swaps,
and `harness.app` joins the processes.
"""
