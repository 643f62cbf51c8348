"""Models: weights and explicit state; nothing here knows of sessions, sockets or the event loop."""
