"""The path of a request, from its history and options through the ranking to the response."""
