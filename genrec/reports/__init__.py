"""Show results in the terminal, as HTML and as Markdown."""
