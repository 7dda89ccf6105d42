"""Turn files into a dataset with a catalog, events, splits and protocols, without any model."""
