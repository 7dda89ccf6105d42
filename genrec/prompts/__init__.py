"""Templates become prompts, and prompts become token ids."""
