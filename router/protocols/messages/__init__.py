"""Messages as Anthropic defines them: requests, answers, streams and their translation."""
