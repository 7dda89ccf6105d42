"""Weight items by counts of events, and fuse these weights with the model."""
