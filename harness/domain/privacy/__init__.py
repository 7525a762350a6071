"""What is kept of requests: captures, their redaction, and finders of personal data."""
