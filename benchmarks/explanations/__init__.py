"""Whether explanations are true, and what they cost."""
