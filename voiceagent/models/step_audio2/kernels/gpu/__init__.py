"""The Triton twins; imported only where there is a CUDA device."""
