"""A drop-in for the class of the `llmlingua` package."""
