"""What a canary is: its rollout plan, guardrails, and the observations that they count."""
