"""The admin HTTP API: calls, tokens, events, metrics."""
