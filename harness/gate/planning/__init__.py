"""Planning before money or traffic is spent: sample sizes, costs, a canary's time."""
