"""What Swapgate had before 0.1.0, each with the sentence that names its replacement."""

from collections.abc import Mapping
from typing import Final

# A key by its path in the file; `*` for any name or place in a list. `path=value`: that value.
RETIRED_KEYS: Final[Mapping[str, str]] = {
    "policies.*.canary.carried_share": "evidence of new callers always lasts over the days",
    "policies.*.canary.evidence": "there is one rule of evidence",
    "policies.*.canary.segment_share": "segments are shown at a rollback, and are no evidence",
    "policies.*.canary.session_requests": "a caller's first request is the unit",
    "policies.*.canary.session_s": "a caller's first request is the unit",
    "policies.*.canary.unit": "a caller's first request is the unit",
    "policies.*.gate.rule": "the gate has one rule; leave the key out",
    "policies.*.gate.spend": "the first look has all of alpha, all looks together 1.5 times it",
    "archive": "`control.traffic_keep_days` says when old traffic is deleted",
    "audit": "collect the control plane's stdout: it has a line for each audit event",
    "projects": "give each team an installation of its own",
    "ui.oidc.project_roles": "put the groups in `ui.oidc.roles`",
    "agents.encrypt": "encrypt the disk or the database",
    "encrypt_content": "encrypt the disk or the database",
}
# A command by its words. Each of its subcommands is retired with it.
RETIRED_COMMANDS: Final[Mapping[str, str]] = {
    "archive": "set `control.traffic_keep_days`, after which old traffic is deleted",
    "audit resend": "use `swapgate audit export`",
    "audit sinks": "collect the control plane's stdout",
    "backup": "use `pg_dump` or SQLite's `.backup` (`swapgate docs open backup`)",
    "bench": "run `make bench` in a checkout",
    "canary bench": "run `python -m benchmarks.canary.run` in a checkout",
    "credential": "use `swapgate provider key`",
    "db downgrade": "restore a backup from before the upgrade",
    "db sign": "use `swapgate db remove-forged`",
    "drift list": "use `swapgate drift history`",
    "drift show": "use `swapgate drift status ROUTE`",
    "eval import": "use `swapgate suite import`",
    "restore": "use `pg_restore`, or put SQLite's file back (`swapgate docs open backup`)",
    "gate bench": "run `python -m benchmarks.gate.run` in a checkout",
    "replay": "use `swapgate gate replay`",
}
