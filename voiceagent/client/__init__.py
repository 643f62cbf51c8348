"""A small asynchronous Python client for the server."""
