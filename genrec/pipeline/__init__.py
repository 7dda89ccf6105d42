"""Turn a history and options into a request, then into a ranking, and finally into a response."""
