"""Agents, sessions, model switches and spawn.

`turn_runner` starts a turn, `conversation` runs it, `turns` stores its steps, and `records` has
the tables. `models` and `auto` choose the model of an answer. `switches` lets an agent ask a
person for another model, and `spawner` runs sub-tasks. The tools are in `built_in_tools` and
`tool_servers`. The package calls models only through the protocol `turn.ModelCalls`.
"""
