"""Benchmarks of explanations: whether they are true, and what they cost."""
