"""Show results in the terminal, in HTML and in Markdown."""
