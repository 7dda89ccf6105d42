"""Scripts that measure genrec. README.md lists them, LOG.md records what came out."""
