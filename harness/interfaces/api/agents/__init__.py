"""The agents API: agents, their sessions and messages over HTTP, in a process of its own."""
