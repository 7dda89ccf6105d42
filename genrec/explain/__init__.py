"""Explain recommendations with evidence, checked sentences and counterfactuals."""
