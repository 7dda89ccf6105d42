"""Explain recommendations: evidence, checked sentences, counterfactuals."""
