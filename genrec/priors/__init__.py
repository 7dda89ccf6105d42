"""Weight items by counts of users' events, and combine these weights with a model."""
