"""Serve a model: the service with its page and limits, and predictions without a server."""
