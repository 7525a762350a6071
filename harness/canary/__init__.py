"""Canaries, shadows and their moves: a candidate's way from its verdict to the end of its bake.

`decision` decides, `machine` writes, `operations` joins both; `status` and `canary_state` only
describe. The statistics are in `harness.gate.online`, and the proof is made in
`harness.proposals`.
"""
