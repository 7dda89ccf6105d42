"""Define the settings of a training run and check their values.

This module deals with settings only, not with data or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from genrec.config import Settings, check_choice, check_keys, check_kind, to_before
from genrec.errors import SettingsError

OBJECTIVES = ("next", "pointwise")
LAYOUTS = ("history", "window")
BASKETS = ("auto", "tree", "first", "as_is")
FITS = ("train", "both")
SCHEDULES = ("cosine", "linear", "constant")
QUANTIZE = ("none", "int8", "nf4")


@dataclass(frozen=True, slots=True)
class Training:
    """The settings of a training run.

    The command line shows these descriptions in its help.

    Attributes:
        examples: path to a file of examples to train on instead of the dataset's histories, in the
            format written by ``genrec examples``.
        objective: training objective. ``next``: generate the title of the next item. ``pointwise``:
            answer the yes-or-no question of ``genrec likes``, whether a user wants an item.
            With ``pointwise``, the settings ``layout``, ``basket``, ``holdout`` and
            ``vocab_weight`` have no effect.
        negatives: with ``pointwise``, number of random negative items for each wanted item. They
            are drawn from items outside the user's history and basket. Defaults to 1, or to 0 with
            ``like_threshold``.
        like_threshold: with ``pointwise``, lowest value, such as a rating, at which an item counts
            as wanted. Items with lower values count as not wanted, and the question becomes whether
            the user will like the item. By default, every event with the target behavior counts as
            wanted.
        pairs_per_user: with ``pointwise``, maximum number of pairs of a history and an item to
            train on per user. The latest pairs are used. By default, there is no limit.
        pairs: with ``pointwise``, path to a CSV, JSONL or Parquet file to train on instead of the
            histories. It must have the columns text and label, where a label is buy or not_buy, yes
            or no, 1 or 0. A random 10% of the rows is used for validation.
        layout: layout of the training sequences. ``history``: one sequence per history, in which
            every title is predicted. ``window``: one prompt per target, as at inference, which also
            works with templates that set ``targets: last`` in their header.
        basket: method of predicting the titles in a basket. ``tree``: predict each title only from
            the history before the basket. ``first``: predict only the first title. ``as_is``:
            predict each title given the earlier ones in the basket, which teaches the model to
            complete baskets. ``auto``: use ``tree`` if the data has baskets, and ``as_is``
            otherwise.
        behaviors: behaviors to include in histories and to predict, such as ``buy``. By default,
            all behaviors are included.
        fit: parts of the data to train on: ``train``, or ``both`` for train and validation.
        holdout: fraction of items to exclude from training, to measure how well the model
            recommends items that are added later.
        holdout_users: fraction of users whose events are not used for training, so that `genrec audit
            --privacy RUN` can test whether the model shows who was trained on.
        replay: number of old targets to train on again for each new one, when training on new
            events.
        vocab_weight: weight of the loss over the whole vocabulary, relative to the loss over the
            catalog. A value above 0 preserves the model's ability to write titles freely, which the
            ``match`` decoder and other inference servers need, but slows down learning.
        label_smoothing: fraction of each target's probability that is spread evenly over all
            possible continuations.
        recency_half_life: age in days at which the weight of a target is halved. By default, the
            weight does not depend on age.
        behavior_weights: weight of the targets with a given behavior. Targets with other behaviors
            have weight 1.
        popularity_strength: strength of the reduction in weight for popular items. The weight of a
            target is its item's popularity raised to the negative of this value.
        lora_rank: rank of the LoRA adapter; 0 trains all weights instead.
        lora_alpha: scale of the adapter's updates. They are multiplied by this value divided by the
            rank.
        lora_dropout: dropout rate of the adapter's inputs.
        dora: use DoRA, which learns the magnitude and the direction of the weights separately.
        target_modules: layers to adapt: ``all-linear``, or layer names separated by commas.
        lora_layers: number of the model's last blocks to adapt; all blocks by default, or if it has no more. With
            ``dp_epsilon``, the blocks below are computed only once, so that few blocks train faster.
        learning_rate: peak learning rate.
        warmup: fraction of steps over which the learning rate rises from 0.
        schedule: learning rate schedule after the warmup: ``cosine``, ``linear`` or ``constant``.
        weight_decay: weight decay of the AdamW optimizer.
        max_grad_norm: maximum norm of the gradients; larger gradients are clipped.
        dp_epsilon: train with differential privacy: whether any one user was in the data can be told from
            the run only to this degree. Small values protect more; 8 is weak and 1 is strong.
        dp_delta: with ``dp_epsilon``, probability with which the guarantee may fail. Defaults to the number
            of users to the power of -1.1.
        dp_clip: with ``dp_epsilon``, norm to which each user's gradient is clipped.
        dp_users: with ``dp_epsilon``, expected number of users in a step.
        dp_tokens: with ``dp_epsilon``, maximum number of tokens of a user's example. Of a user with a longer
            history, the window of events with the most targets is used.
        epochs: number of passes over all targets.
        max_targets: number of targets to train on, rounded up to a whole batch. Overrides
            ``epochs``.
        max_minutes: time limit in minutes for the whole command, including loading, validation, saving
            and fitting the prior's weight. Use ``--resume`` to continue from the checkpoint.
        batch_size: number of packs per batch on each device; see ``pack_tokens``.
        accumulate: number of batches per optimizer step.
        pack_tokens: maximum number of tokens in a pack. Several short sequences share a pack.
        overlap: fraction of each window of events that is repeated in the next window, for
            histories longer than ``max_events``.
        gradient_checkpointing: use less memory, but take about a third more time.
        quantize: precision of the base model's weights while an adapter is trained. ``none``: the
            precision in which the model was loaded. ``int8`` or ``nf4``: quantized weights (QLoRA).
        protocol: evaluation protocol that splits the events into training and validation data.
            Defaults to the dataset's own split.
        eval_users: number of validation users to evaluate the model on; 0 turns validation off.
        eval_every: number of targets to train on between validations. By default, a run has ten
            validations.
        tune_users: number of validation users to fit the weight of the prior on when the training ends,
            as ``genrec tune --run`` does; 0 fits nothing, and the run is then used without a prior.
        patience: stop after this many validations without improvement; 0 never stops early.
        save_steps: number of steps between checkpoints. By default, ``save_minutes`` applies.
        save_minutes: number of minutes between checkpoints.
        log_steps: number of steps between log lines. Slow steps are logged at least every 15 seconds.
        report_to: experiment trackers to use in addition to the log, such as ``tensorboard`` or
            ``wandb``, separated by commas; ``none`` uses no others.
        seed: random seed for the adapter's initial weights, the order of the data, and dropout.
    """

    examples: str | None = None
    objective: str = "next"
    negatives: int | None = None
    like_threshold: float | None = None
    pairs_per_user: int | None = None
    pairs: str | None = None
    layout: str = "history"
    basket: str = "auto"
    behaviors: tuple[str, ...] | None = None
    fit: str = "train"
    holdout: float = 0.0
    holdout_users: float = 0.0
    replay: float = 1.0
    vocab_weight: float = 0.0
    label_smoothing: float = 0.0
    recency_half_life: float | None = None
    behavior_weights: Mapping[str, float] = field(default_factory=dict)
    popularity_strength: float = 0.0
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    dora: bool = False
    target_modules: str = "all-linear"
    lora_layers: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.05
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    dp_epsilon: float | None = None
    dp_delta: float | None = None
    dp_clip: float = 1.0
    dp_users: int = 64
    dp_tokens: int = 128
    epochs: float = 2.0
    max_targets: int | None = None
    max_minutes: float | None = None
    batch_size: int = 1
    accumulate: int = 1
    pack_tokens: int = 512
    overlap: float = 0.5
    gradient_checkpointing: bool = False
    quantize: str = "none"
    protocol: str | None = None
    eval_users: int = 50
    eval_every: int | None = None
    tune_users: int = 100
    patience: int = 0
    save_steps: int | None = None
    save_minutes: float = 5.0
    log_steps: int = 10
    report_to: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check each value and the combinations of values.

        Raises:
            SettingsError: a value is invalid, or two values cannot be combined.
        """
        given: object = self.behaviors
        if isinstance(given, list):  # YAML and JSON have no tuples
            object.__setattr__(self, "behaviors", tuple(given))
        for f in fields(self):
            if f.name not in {"behaviors", "behavior_weights"}:
                check_kind(f.name, getattr(self, f.name), str(f.type))
        _check_behaviors(self.behaviors, self.behavior_weights)
        for name, choices in (
            ("objective", OBJECTIVES),
            ("layout", LAYOUTS),
            ("basket", BASKETS),
            ("fit", FITS),
            ("schedule", SCHEDULES),
            ("quantize", QUANTIZE),
        ):
            check_choice(name, getattr(self, name), choices)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:  # NaN is rejected too
                msg = f"{name}={value} is not valid. Expected a number of at least {least:g}."
                raise SettingsError(msg)
        for name in (
            "holdout",
            "holdout_users",
            "label_smoothing",
            "lora_dropout",
            "warmup",
            "overlap",
        ):
            if not 0 <= getattr(self, name) < 1:
                msg = (
                    f"{name}={getattr(self, name)} is not valid. Expected a number of at least 0 and "
                    "less than 1."
                )
                raise SettingsError(msg)
        if not 0 < self.learning_rate < 1:
            msg = f"learning_rate={self.learning_rate} is not valid. Expected a number between 0 and 1."
            raise SettingsError(msg)
        if self.quantize != "none" and not self.lora_rank:
            msg = (
                f"quantize={self.quantize!r} does not work with lora_rank=0, since quantized weights "
                "cannot be trained. Expected lora_rank to be at least 1, or quantize to be left out."
            )
            raise SettingsError(msg)
        self._check_objective()
        if self.layout == "window" and self.basket in {"tree", "as_is"}:
            msg = (
                f"layout='window' does not work with basket={self.basket!r}. Expected basket='first' "
                "to predict the first title of each basket, or basket='auto' to predict all titles."
            )
            raise SettingsError(msg)

    @property
    def before(self) -> str:
        """The name of the first split that is not used for training: ``validation`` or ``test``."""
        return to_before(self.fit)

    def _check_objective(self) -> None:
        for name in ("negatives", "like_threshold", "pairs_per_user", "pairs"):
            value = getattr(self, name)
            if value is not None and self.objective != "pointwise":
                msg = (
                    f"{name}={value!r} has no effect with objective={self.objective!r}. Expected "
                    f"objective='pointwise', or {name} to be left out."
                )
                raise SettingsError(msg)
        if self.objective == "pointwise" and self.examples is not None:
            msg = (
                f"examples={self.examples!r} does not work with objective='pointwise', which needs "
                "labels. Expected the setting pairs instead, with a file that has the columns text and "
                "label."
            )
            raise SettingsError(msg)
        if self.negatives == 0 and self.like_threshold is None and self.pairs is None:
            msg = (
                "negatives=0 leaves only wanted items to train on. Expected a number of at least 1, or "
                "a like_threshold, below which items count as not wanted."
            )
            raise SettingsError(msg)


_LEAST: dict[str, float] = {
    "negatives": 0,
    "pairs_per_user": 1,
    "vocab_weight": 0,
    "replay": 0,
    "recency_half_life": 1e-6,
    "popularity_strength": 0,
    "lora_rank": 0,
    "lora_layers": 1,
    "lora_alpha": 1e-6,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "dp_epsilon": 0.01,
    "dp_delta": 1e-30,
    "dp_clip": 1e-6,
    "dp_users": 1,
    "dp_tokens": 16,
    "epochs": 1e-6,
    "max_targets": 1,
    "max_minutes": 0,
    "batch_size": 1,
    "accumulate": 1,
    "pack_tokens": 16,
    "eval_users": 0,
    "eval_every": 1,
    "tune_users": 0,
    "patience": 0,
    "save_steps": 1,
    "save_minutes": 0,
    "log_steps": 1,
    "seed": 0,
}


def _check_behaviors(behaviors: object, weights: object) -> None:
    listed = isinstance(behaviors, tuple) and all(isinstance(b, str) for b in behaviors)
    if not (behaviors is None or (listed and behaviors)):
        msg = (
            f"behaviors={behaviors!r} is not valid. Expected a tuple of names, such as ('buy',), or "
            "None for all."
        )
        raise SettingsError(msg)
    if not isinstance(weights, Mapping) or not all(
        isinstance(w, int | float) and w >= 0 for w in weights.values()
    ):
        msg = (
            f"behavior_weights={weights!r} is not valid. Expected a mapping from behaviors to weights "
            "of at least 0, such as {'buy': 2}."
        )
        raise SettingsError(msg)


def describe_settings() -> dict[str, str]:
    """Return a mapping from each setting to its description in the docstring of ``Training``."""
    lines = (Training.__doc__ or "").partition("Attributes:")[2].splitlines()
    texts: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.strip()
        if line.startswith("        ") and not line.startswith("         ") and ":" in text:
            name, _, text = text.partition(":")
        if name and text:
            texts[name] = f"{texts.get(name, '')} {text.strip()}".strip().replace("``", "")
    return {name: text[0].upper() + text[1:] for name, text in texts.items()}


PRIVATE: dict[str, Any] = {  # what works best with noise; see benchmarks/LOG.md
    "fit": "both", "lora_rank": 1, "lora_alpha": 2.0, "lora_layers": 4, "learning_rate": 1e-2,
    "epochs": 1.3,
}  # fmt: skip


def resolve(values: Mapping[str, Any]) -> tuple[Settings, Training]:
    """Divide the given settings into those of the recommender and those of the training run.

    With ``dp_epsilon``, settings that are not given have the values of ``PRIVATE``. The seed is passed
    to both. With ``objective="pointwise"``, the template defaults to ``would_like``; if a
    ``like_threshold`` is given as well, the target behavior defaults to ``like``.

    Args:
        values: the settings, keyed by name, from a YAML file or the command line.

    Raises:
        SettingsError: a key is unknown, or a value is invalid or not supported in training. For an
            unknown key, the message suggests the most similar name.
    """
    of_training, of_settings = ({f.name for f in fields(c)} for c in (Training, Settings))
    check_keys(values, [*of_training, *of_settings])
    if values.get("dp_epsilon") is not None:
        values = {**PRIVATE, **values}
    training = Training(**{k: v for k, v in values.items() if k in of_training})
    settings = Settings(**{k: v for k, v in values.items() if k in of_settings})
    whole = "objective='pointwise'" if training.objective == "pointwise" else ""
    if training.examples is not None:
        whole = f"examples={training.examples!r}"
    if settings.attention != "full" and whole:
        msg = (
            f"attention={settings.attention!r} does not work with {whole}, whose texts are always read "
            "as a whole. Expected attention='full', or objective='next' and histories of a dataset."
        )
        raise SettingsError(msg)
    if training.objective == "pointwise":
        liked = "like" if training.like_threshold is not None else None
        settings = replace(
            settings,
            template=settings.template or "would_like",
            target_behavior=settings.target_behavior or liked,
        )
    return settings, training


def read(path: str | Path) -> dict[str, Any]:
    """Read the settings in a YAML file.

    Raises:
        SettingsError: the file cannot be read, or its content is not a mapping of settings.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"Cannot read {path} as YAML: {error}. Expected lines such as `lora_rank: 8`."
        raise SettingsError(msg) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        msg = f"{path} does not contain settings. Expected lines such as `lora_rank: 8`."
        raise SettingsError(msg)
    return values
