"""Audio bytes and samples: formats, G.711, resampling, files; numpy in, numpy out, no asyncio."""
