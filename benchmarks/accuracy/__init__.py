"""Benchmarks of accuracy: baselines, priors, models, matching, yes or no."""
