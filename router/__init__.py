"""The data plane: an OpenAI-shaped API that serves from an immutable snapshot."""
