"""Language models: what they must be able to do, loading them, and reading token trees."""
