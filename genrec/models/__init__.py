"""Declare the interfaces of language models, load models, and score continuations of prompts."""
