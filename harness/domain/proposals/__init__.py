"""What a proposal of a new model is, and the policy that decides on it."""
