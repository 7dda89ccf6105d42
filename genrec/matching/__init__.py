"""Find catalog items in text, by spelling or by meaning, and encode titles as vectors."""
