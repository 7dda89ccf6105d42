"""Weights over items from counts, and how they are fused with the model."""
