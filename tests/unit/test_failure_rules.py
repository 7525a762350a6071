"""Every cell of the table of failure classes (docs/reference/router.md)."""

import pytest

from harness.domain.reliability.failures import FAILURE_RULES, FailureClass

F = FailureClass
TABLE = """
class            fault    same_target next_target    breaker  alerts other_key several_callers
rate_limited     ours     retry_after yes            neutral  no     yes       no
quota            ours     never       yes            opens    yes    yes       no
our_key          ours     never       yes            opens    yes    yes       no
blocked          provider never       yes            opens    no     no        yes
region           region   never       yes            opens    no     no        no
overloaded       provider backoff     yes            failure  no     no        no
server           provider once        yes            failure  no     no        no
connect          provider once        yes            failure  no     no        no
timeout          provider never       yes            failure  no     no        no
malformed        provider never       yes            failure  no     no        no
aborted          provider once        yes            failure  no     no        yes
empty            provider never       yes            failure  no     no        no
bad_request      client   never       no             neutral  no     no        no
unsupported      client   never       yes            neutral  no     no        no
foreign_state    client   never       no             neutral  no     no        no
endpoint_missing endpoint never       yes            neutral  no     no        no
model_unknown    ours     never       yes            opens    yes    no        no
context_window   client   never       larger_window  neutral  no     no        no
content_policy   client   never       if_route_says  neutral  no     no        no
cancelled        client   never       no             neutral  no     no        no
internal         router   never       yes            neutral  no     no        no
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.req("A5", "B3")
def test_each_class_does_what_its_row_says() -> None:
    def say(value: object) -> object:
        return (
            ("no", "yes")[value] if isinstance(value, bool) else getattr(value, "value", value)
        )

    rules = {
        failure.value: [say(getattr(rule, column)) for column in HEAD[1:]]
        for failure, rule in FAILURE_RULES.items()
    }
    assert rules == {failure: cells for failure, *cells in ROWS}
