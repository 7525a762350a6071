"""The offline gate: paired scores of two eval runs in, a verdict out.

`pairs` pairs samples, `design` and `item_tests` test differences, `sequential` decides one
comparison, `suite_judgement` and `suite_claims` judge suites, and `verdicts` combines them.
`label_plan`, `label_evidence` and `label_forecast` judge pairs by people's preferences. No
module here reads a store or calls a model. statistics.md §1 explains the rules.
"""
