"""Chat completions as OpenAI defines them: requests, answers, streams and their translation."""
