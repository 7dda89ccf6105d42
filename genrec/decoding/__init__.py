"""Find the items that a model ranks highest by searching a prefix tree of the catalog's titles."""
