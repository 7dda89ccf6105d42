"""Turn histories into prompts, as segments of text and titles, and encode them as token ids."""
