"""The simulated provider: a server whose models have a known skill, in three protocols.

It uses neither Inspect nor a scientific library, so it starts fast and carries load.

`server` serves, `simulator` answers a request, `simulated_model` decides right or wrong,
`answers` writes texts and calls, and `faults` breaks answers on demand. The protocols are in
`chat_completions`, `messages` and `responses`. Production uses no module of this package. Each
answer's fingerprint marks it as simulated.
"""
