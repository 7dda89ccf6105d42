"""Find the items that a text refers to, by spelling or meaning, and encode titles as vectors."""
