"""The pure core: events in, actions out; no clock, no socket, no tensor."""
