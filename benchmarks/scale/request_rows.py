"""Statements that fill what requests leave behind, in SQL of SQLite or PostgreSQL: a number for
each row, from which its route, time and user follow.
"""

# ruff: noqa: S608 - numbers of ours and names of our tables

from benchmarks.scale.sizes import DAYS_OF_SPEND, DAYS_OF_TRAFFIC, OBSERVATIONS_OF_ROW, Size


def request_rows(size: Size, *, postgres: bool) -> list[str]:
    """One INSERT for each table. Parameters: at (in µs), routes, one, other, no, rules."""
    if postgres:
        route = "'route-' || lpad((n.i % :routes)\\:\\:text, 4, '0')"
        key = "'k_' || lpad(n.i\\:\\:text, 8, '0')"
        day = (
            "to_char(to_timestamp(:at / 1000000) - make_interval(days => days.d), 'YYYY-MM-DD')"
        )
    else:
        route = "'route-' || substr('000' || (n.i % :routes), -4)"
        key = "'k_' || substr('0000000' || n.i, -8)"
        day = "date(:at / 1000000, 'unixepoch', '-' || days.d || ' days')"
    days = " UNION ALL ".join(f"SELECT {number} AS d" for number in range(DAYS_OF_SPEND))
    minutes, each = DAYS_OF_TRAFFIC * 1440, max(1, size.traffic_rows // size.routes)
    return [
        # Row by row over the routes, and evenly over the minutes.
        (
            "INSERT INTO traffic (route, minute, worker, arm, target, revision, requests,"
            " failed, charged, streams, input_tokens, output_tokens, cost_usd, latency_ms)"
            f" SELECT {route}, :at - ((n.i / :routes) * {minutes} / {each}) * 60000000,"
            f" 'router-1/' || (n.i % 2), 'incumbent', :one, 1, {OBSERVATIONS_OF_ROW}, n.i % 3,"
            ' 0, 10, 20000, 5000, 0.02, \'{"250"\\:30,"500"\\:20}\''
            f" FROM {_numbers(size.traffic_rows, postgres=postgres)}"
        ),
        (
            "INSERT INTO key_spend (key, day, worker, requests, tokens, cost_usd, unpriced)"
            f" SELECT {key}, {day}, 'router-1', 320, 160000, 0.2, 0"
            f" FROM {_numbers(size.keys, postgres=postgres)} CROSS JOIN ({days}) AS days"
        ),
        (
            "INSERT INTO failover (worker, number, at, request, route, arm, target, provider,"
            " failure, status, attempts, latency_ms, endpoint, stream, body_bytes, messages,"
            " tools, user_hash, next_target) SELECT 'router-1/0', n.i + 1,"
            f" :at - n.i * ({DAYS_OF_TRAFFIC} * 86400000000 / {size.failovers}), 'req_' || n.i,"
            f" {route}, 'incumbent', :one, 'sim', 'timeout', 504, 1, 900.0, 'chat', :no, 900,"
            " 4, 0, 'user' || (n.i % 5000), :other"
            f" FROM {_numbers(size.failovers, postgres=postgres)}"
        ),
        (
            "INSERT INTO captured (id, at, expires_at, route, request, endpoint, stream, arm,"
            " target, revision, data_class, user_hash, share_bps, rules, redactions, content,"
            " seen) SELECT 'c_' || n.i, :at - n.i * 1000000, :at + 864000000000,"
            f" {route}, 'req_' || n.i, 'chat', :no, 'incumbent', :one, 1, '',"
            " 'user' || (n.i % 5000), 100, :rules, '{}',"
            ' \'{"request"\\:{"messages"\\:[]},"answer"\\:"yes"}\', 1'
            f" FROM {_numbers(size.captures, postgres=postgres)}"
        ),
    ]


def _numbers(count: int, *, postgres: bool) -> str:
    """A table n with the numbers i from 0 on."""
    if postgres:
        return f"generate_series(CAST(0 AS bigint), {count - 1}) AS n(i)"
    return (
        "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {count - 1}) SELECT i FROM n) AS n"
    )
