"""Turn files into a dataset with a catalog, events, splits and protocols. Needs no model."""
