"""Describe what a user's history says about their taste, and let users correct the description."""
