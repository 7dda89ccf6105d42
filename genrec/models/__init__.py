"""Declare the interfaces of language models, load models, and evaluate token trees."""
