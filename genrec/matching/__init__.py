"""Find the catalog items that a text names by spelling or meaning, and encode titles as vectors."""
