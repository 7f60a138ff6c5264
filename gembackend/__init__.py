"""A chat backend over Gemini: HTTP in, a durable queue in PostgreSQL and Redis between, answers out."""

__version__ = "0.1.0"
