"""Turn files into a dataset: catalog, events, splits and protocols. Knows no model."""
