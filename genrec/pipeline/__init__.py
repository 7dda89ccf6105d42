"""The path of a request: history and options, ranking, response."""
