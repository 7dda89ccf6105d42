"""Search the catalog's trie with a model. Deals with token ids only, not with text."""
