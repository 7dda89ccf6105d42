"""Render histories as prompts, which consist of text and titles, and encode them as token ids."""
