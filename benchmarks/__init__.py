"""Scripts that measure genrec; README.md lists them, LOG.md holds what came out."""
