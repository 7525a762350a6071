"""Swapgate as `swapgate serve router` runs it: a file, a database, a key; nothing left out."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.catalogue import rows
from benchmarks.faults.gateways import fallback_chain
from benchmarks.faults.gateways.fallback_chain import Limits
from benchmarks.faults.routes import routes
from benchmarks.router.peers.peer import Ask, Peer, Site
from harness.app.database import upgrade_database
from harness.app.installation import open_installation
from harness.control.operations import keys
from harness.control.routing import seed
from harness.domain.operations.access import SYSTEM

KEY_FILE = "key"


def document(site: Site, limits: Limits) -> dict[str, object]:
    """The configuration file. Retry and breaker are the defaults."""
    return {
        "home": str(site.folder / "home"),
        "router": {
            "port": site.port,
            "first_token_timeout_s": limits.first_token_s,
            "between_chunks_timeout_s": limits.between_chunks_s,
            "total_timeout_s": limits.total_s,
            "connect_timeout_s": 1.0,
        },
        "providers": {
            name: {"kind": "custom", "api_base": url}
            for name, url in fallback_chain.addresses(site).items()
        },
        "routes": {
            route.name: {
                "incumbent": f"{route.variant.place}/{route.primary}",
                "fallbacks": [f"{fallback_chain.SPARE}/{route.spare}"],
                "total_timeout_s": limits.total_s,
            }
            for route in routes(rows())
        },
    }


def install(site: Site, limits: Limits = fallback_chain.LIMITS, **more: object) -> Path:
    """The file, a migrated and seeded database, and a key beside it. more: of the file."""
    config = site.folder / "swapgate.yaml"
    text = json.dumps({**document(site, limits), **more})  # JSON is YAML
    config.write_text(text, encoding="utf-8")
    installation = open_installation(config, create_secret=True)
    try:
        upgrade_database(installation.settings)
        seed.apply_seed(installation.context, installation.settings)
        _, key = keys.create_key(
            installation.context, SYSTEM, "bench", secret=installation.secret
        )
    finally:
        installation.close()
    (site.folder / KEY_FILE).write_text(key, encoding="ascii")
    return config


def serve(config: Path, part: str = "router") -> Sequence[str]:
    """The argv of one of its processes."""
    main = [sys.executable, "-m", "swapgate"]
    return [*main, "--config", str(config), "serve", part]


def command(site: Site) -> Sequence[str]:
    return serve(install(site))


def ask(site: Site, route: str) -> Ask:
    key = (site.folder / KEY_FILE).read_text(encoding="ascii")
    return Ask(model=route, headers={"Authorization": f"Bearer {key}"})


PEER = Peer("Swapgate", command, ask, start_s=60)
