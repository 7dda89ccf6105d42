"""Understand what people say they want: conditions, unwanted things, counts and references."""
