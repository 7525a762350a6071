"""People's labels: which of two answers to one request they prefer (statistics.md §1.23).

`labelling` has the records and their rules, `records` their tables, and `label_pairs` the use
cases. `harness.gate.offline.label_evidence` computes what the labels show.
"""
