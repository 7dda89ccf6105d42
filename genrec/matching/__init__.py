"""Match text to catalog items by spelling or meaning, and encode titles as vectors."""
