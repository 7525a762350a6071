"""What the file says of models, keep-warm and health checks, in a router's own process."""

from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest

from evals.sim import server
from tests.support.providers import simulator_thread
from tests.support.router.router_process import ROUTE, eventually, routed

TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OWN, SPARE = "sim/sim-base", "other/sim-better"


def ask_route(client: openai.OpenAI, **more: Any) -> tuple[str, str]:
    """The arm, and the target that served."""
    raw = client.chat.completions.with_raw_response.create(
        model=ROUTE, messages=[{"role": "user", "content": "Colour number 3?"}], **more
    )
    assert raw.parse().choices[0].message
    return raw.headers["x-swapgate-arm"], raw.headers["x-swapgate-target"]


@pytest.mark.req("A4", "B6", "B10")
def test_a_routers_process_does_what_its_file_says(tmp_path: Path) -> None:
    with simulator_thread.serve_in_thread(server.simulator(time_scale=0)) as url:
        sim = {"kind": "sim", "api_base": f"{url}/v1"}
        sections: dict[str, Any] = {
            "router": {"flush_interval_s": 0.2, "health_check_interval_s": 0.5},
            "providers": {
                "sim": {**sim, "models": {"sim-base": {"tools": False}}},
                "other": sim,
            },
            "routes": {
                ROUTE: {
                    "incumbent": OWN,
                    "fallbacks": [SPARE],
                    "suites": ["colours"],
                    "keep_warm": "10%",
                }
            },
        }
        with routed(tmp_path, url, **sections) as place:
            place.start()
            with place.client() as client:

                def checked(target: str) -> bool:
                    key = {"authorization": f"Bearer {place.key}"}
                    text = client._client.get(f"{place.url}/metrics", headers=key).text
                    # In a router's own process gauges say whose they are.
                    return (
                        f'swapgate_health_check_up{{target="{target}",worker="0"}} 1.0' in text
                    )

                eventually(lambda: checked(OWN) and checked(SPARE))
                assert ask_route(client, tools=[TOOL])[1] == SPARE
                served = Counter(ask_route(client, user=f"user-{n}") for n in range(150))

            # 15 expected, deviation 3.7; the draw differs from day to day.
            assert 1 <= served["keep_warm", SPARE] <= 40
            assert set(served) == {("keep_warm", SPARE), ("incumbent", OWN)}
            eventually(lambda: place.recorded() == 151)
            assert {row.arm for row in place.traffic()} == {"incumbent", "keep_warm"}
