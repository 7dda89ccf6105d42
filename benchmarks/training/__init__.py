"""Benchmarks of training: targets per second, and what each setting is worth."""
