"""Language models: their interfaces, loading them, and evaluating token trees."""
