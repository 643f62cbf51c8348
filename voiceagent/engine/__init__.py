"""The engine: one supervised process that owns the models, and the client that talks to it."""
