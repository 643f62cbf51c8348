"""The innermost operations of the language model: pure functions, each with a Triton and a torch twin."""
