"""voiceagent: a real-time duplex voice-agent server for models of the Step-Audio 2 family."""

__version__ = "0.1.0"
