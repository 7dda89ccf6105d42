"""The order of packages."""

from __future__ import annotations

# A package may import from those before it, a module of a package from any other of its own that
# does not lead back.
ORDER = [
    "errors", "types", "version", "json_text", "text", "keys", "config", "files", "cache", "extras",
    "runs", "memory",
    "data", "models", "prompts", "matching", "conversation", "decoding", "baselines", "priors", "explain", "taste", "pipeline",
    "recommender", "batch", "evaluation", "sentiment", "training", "fitting", "reports", "service", "cli", "__main__",
]  # fmt: skip
