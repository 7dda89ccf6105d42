"""From files to a dataset: catalog, events, splits, protocols. Knows no model."""
