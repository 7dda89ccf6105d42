"""Recommenders without a language model, to compare with."""
