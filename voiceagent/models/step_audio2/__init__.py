"""The Step-Audio 2 family: encoder, adapter, language model and Token2Wav, loaded from its own folder layout."""
