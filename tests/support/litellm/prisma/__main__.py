"""LiteLLM asks this program to migrate; the test has run LiteLLM's migrations already."""
