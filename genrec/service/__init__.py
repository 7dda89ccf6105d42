"""Serve recommendations over HTTP, with a store for everything that happens after the dataset."""
