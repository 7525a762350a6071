"""The processes that ask and score the items of eval runs."""
