"""Search the catalog's trie with a model. Knows token ids, nothing of text."""
