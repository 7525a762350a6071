"""Operating an installation: alerts, keys and people, sign-in, captured requests, integrity,
the control process's jobs, and queries for lists and pages.

Interfaces call these functions; no decision about a swap is made here. Swaps are in
`harness.proposals` and `harness.canary`, and the processes are joined in `harness.app`.
"""
