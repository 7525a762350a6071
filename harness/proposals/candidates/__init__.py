"""Candidates: the choice of models to propose, by an estimate, a schedule or earlier
measurements.

`estimate` and `cost_ratio` predict a comparison before it costs anything. `candidates` and
`candidate_rounds` run a route's schedule, and `leaderboard` ranks measured models. No module
here registers a proposal itself: rounds call `harness.proposals.submission`.
"""
