"""Language models: the interfaces they offer, loading them, and reading token trees."""
