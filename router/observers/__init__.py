"""The observers room holds what watches a request and may never cost a user an answer."""
