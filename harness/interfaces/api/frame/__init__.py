"""The frame of the REST API: who may call what, how bodies are read, and answers written."""
