"""The offline gate: paired scores of two eval runs in, a verdict out."""
