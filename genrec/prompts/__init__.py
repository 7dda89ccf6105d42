"""Render users' histories as prompts for a language model, and encode prompts as token ids."""
