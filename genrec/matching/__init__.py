"""Find catalog items in text, by spelling and by meaning."""
