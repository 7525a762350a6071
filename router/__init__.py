"""The data plane: an OpenAI-shaped API that serves from an immutable snapshot.

A request passes `server`, `access`, `request` and `upstream`. `protocols` and
`conversation` read and rewrite it. `snapshot` and `health` say where it may go, `observers`
and `recording` keep what it did. Changes of routes are decided in `harness`, not here.
"""
