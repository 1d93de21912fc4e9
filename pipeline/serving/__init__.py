"""How the model answers: the service, its page, its limits, and predictions without a server."""
