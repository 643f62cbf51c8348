"""Wire dialects: protocol messages to core events and core actions to protocol messages; no I/O."""
