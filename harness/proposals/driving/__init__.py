"""What `harness.proposals.driver` does after the evals: `proposal_ends` ends a proposal, and
`passed_verdicts` continues it after a passed verdict.
"""
