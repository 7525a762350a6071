"""What `harness.proposals.driver` does around the evals: `suite_runs` chooses the runs,
`proposal_ends` ends a proposal, and `passed_verdicts` continues it after a passed verdict.
"""
