"""Hold and check the settings of training. Knows no data and no models."""

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
    """How a model is trained.

    Attributes:
        examples: a file of examples to learn from instead of the dataset's histories, as
            ``genrec examples`` writes it.
        objective: what the model learns: ``next`` (to write the title of the next item) or
            ``pointwise`` (to answer yes or no to the question of ``genrec likes``: will this user
            want this item?). With ``pointwise``, the settings ``layout``, ``basket``, ``holdout``
            and ``vocab_weight`` have no effect.
        negatives: with ``pointwise``, how many random items are added for each wanted one; they are
            drawn from items outside the user's history and basket. The default is 1, or 0 with
            ``like_threshold``.
        like_threshold: with ``pointwise``, the lowest value (a rating, say) at which an item counts
            as wanted; lower values count as not wanted, and the question is whether the user will
            like the item. Without it, every event with the target behavior counts as wanted.
        pairs_per_user: with ``pointwise``, how many of each user's latest pairs of history and item
            are learned from; all by default.
        pairs: with ``pointwise``, a CSV, JSONL or Parquet file to learn from instead of the
            histories. It has the columns text and label (buy or not_buy, yes or no, 1 or 0). A
            random tenth of its rows is kept for validation.
        layout: how histories become training sequences. ``history``: one sequence for each history,
            in which every title is predicted. ``window``: one prompt and one target, as at
            inference; it also works with templates whose header says ``targets: last``.
        basket: how the titles of a basket are predicted. ``tree``: each from the history before
            the basket, without seeing the others. ``first``: only the first title. ``as_is``: each
            after those before it, which teaches basket completion. ``auto``: ``tree`` if the data
            has baskets, else ``as_is``.
        behaviors: the only behaviors that histories show and that are predicted, such as
            ``buy``; all by default.
        fit: the parts of the data to learn from: ``train``, or ``both`` for train and validation.
        holdout: the share of items that are left out of training, to measure how well the model
            recommends items that are added later.
        replay: when training on new events, how many old targets are learned again for each new
            one.
        vocab_weight: weight of the loss over the whole vocabulary, beside the loss over the
            catalog, which has weight 1. Above 0, the model can still write titles freely, as the
            decoder ``match`` and other servers need, but learns the next item more slowly.
        label_smoothing: the share of each prediction's target probability that is spread evenly over
            all possible continuations.
        recency_half_life: the age in days at which a target has half the weight; by default, all
            ages weigh the same.
        behavior_weights: the weight of targets with this behavior; other behaviors have weight 1.
        popularity_strength: how strongly popular items are weighted down: a target's weight is its
            item's popularity to the power of minus this number.
        lora_rank: the rank of the LoRA adapter; 0 trains all weights instead.
        lora_alpha: scale of the adapter's updates: they are multiplied by this number divided by the
            rank.
        lora_dropout: the dropout rate of the adapter's inputs.
        dora: learn the magnitudes of the weights separately (DoRA).
        target_modules: the layers that get an adapter: ``all-linear``, or layer names separated by
            commas.
        learning_rate: the highest learning rate.
        warmup: the share of steps over which the learning rate rises from 0.
        schedule: how the learning rate falls after the warmup: ``cosine``, ``linear`` or
            ``constant``.
        weight_decay: the weight decay of the optimizer, AdamW.
        max_grad_norm: the largest norm of the gradients; larger ones are scaled down to it.
        epochs: how many times all targets are learned from.
        max_targets: how many targets to learn from instead of ``epochs``, rounded up to a whole
            batch.
        max_minutes: stop after this many minutes and write a checkpoint, from which ``--resume``
            continues.
        batch_size: how many packs (see ``pack_tokens``) make a batch on each device.
        accumulate: how many batches make one step of the optimizer.
        pack_tokens: the most tokens in a pack; sequences are placed side by side until it is full.
        overlap: for histories longer than ``max_events``, the share of each window that the next
            one shows again.
        gradient_checkpointing: use less memory, at a third more time.
        quantize: precision of the base model's weights while an adapter is trained: ``none`` (as
            loaded), ``int8`` or ``nf4`` (QLoRA).
        protocol: the named evaluation protocol that splits the events into training and validation;
            by default, the dataset's own split is used.
        eval_users: how many validation users to measure the model on; 0 turns validation off.
        eval_every: how many targets to learn from between validations; by default, there are ten
            validations in a run.
        patience: stop after this many validations without improvement; 0 never stops early.
        save_steps: how many steps to make between checkpoints; by default, ``save_minutes``
            decides.
        save_minutes: how many minutes to train between checkpoints.
        log_steps: how many steps to make between lines of the log.
        report_to: further experiment trackers, such as ``tensorboard`` or ``wandb``, separated by
            commas; ``none`` for no others.
        seed: the random seed of the adapter's initial weights, the order of the data and dropout.
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
    learning_rate: float = 1e-3
    warmup: float = 0.05
    schedule: str = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
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
    patience: int = 0
    save_steps: int | None = None
    save_minutes: float = 5.0
    log_steps: int = 10
    report_to: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        given: object = self.behaviors
        if isinstance(given, list):  # as YAML and JSON have it
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
            if value is not None and not value >= least:  # NaN is refused too
                msg = f"{name}={value}. Expected {least:g} or more."
                raise SettingsError(msg)
        for name in ("holdout", "label_smoothing", "lora_dropout", "warmup", "overlap"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"{name}={getattr(self, name)}. Expected 0 or more and less than 1."
                raise SettingsError(msg)
        if not 0 < self.learning_rate < 1:
            msg = f"learning_rate={self.learning_rate}. Expected more than 0 and less than 1."
            raise SettingsError(msg)
        if self.quantize != "none" and not self.lora_rank:
            msg = (
                f"quantize={self.quantize!r} with lora_rank=0: quantized weights cannot be trained "
                "themselves. Expected a rank of 1 or more; or drop quantize."
            )
            raise SettingsError(msg)
        self._check_objective()
        if self.layout == "window" and self.basket in {"tree", "as_is"}:
            msg = (
                f"layout='window' does not work with basket={self.basket!r}. Expected basket='first' "
                "to predict the first title of each basket, or 'auto' to predict all of them."
            )
            raise SettingsError(msg)

    @property
    def before(self) -> str:
        """The split before which events are learned from: ``validation`` or ``test``."""
        return to_before(self.fit)

    def _check_objective(self) -> None:
        for name in ("negatives", "like_threshold", "pairs_per_user", "pairs"):
            value = getattr(self, name)
            if value is not None and self.objective != "pointwise":
                msg = (
                    f"{name}={value!r} has no meaning with objective={self.objective!r}. Expected "
                    "it with objective='pointwise' only; drop it, or set that objective."
                )
                raise SettingsError(msg)
        if self.objective == "pointwise" and self.examples is not None:
            msg = (
                f"examples={self.examples!r} does not work with objective='pointwise', which learns "
                "from labels. Expected the setting pairs, a file with the columns text and label."
            )
            raise SettingsError(msg)
        if self.negatives == 0 and self.like_threshold is None and self.pairs is None:
            msg = (
                "negatives=0 leaves only items that were wanted. Expected 1 or more, or a "
                "like_threshold below which items count as not wanted."
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
    "lora_alpha": 1e-6,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "epochs": 1e-6,
    "max_targets": 1,
    "max_minutes": 0,
    "batch_size": 1,
    "accumulate": 1,
    "pack_tokens": 16,
    "eval_users": 0,
    "eval_every": 1,
    "patience": 0,
    "save_steps": 1,
    "save_minutes": 0,
    "log_steps": 1,
    "seed": 0,
}


def _check_behaviors(behaviors: object, weights: object) -> None:
    listed = isinstance(behaviors, tuple) and all(isinstance(b, str) for b in behaviors)
    if not (behaviors is None or (listed and behaviors)):
        msg = f"behaviors={behaviors!r}. Expected a tuple of names, such as ('buy',), or None for all."
        raise SettingsError(msg)
    if not isinstance(weights, Mapping) or not all(
        isinstance(w, int | float) and w >= 0 for w in weights.values()
    ):
        msg = (
            f"behavior_weights={weights!r}. Expected behaviors with weights of 0 or more, such as "
            "{'buy': 2}."
        )
        raise SettingsError(msg)


def describe_settings() -> dict[str, str]:
    """Return a description of each setting, taken from the docstring of ``Training``."""
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


def resolve(values: Mapping[str, Any]) -> tuple[Settings, Training]:
    """Divide settings from a YAML file or the command line into those of recommender and training.

    Both have a ``seed``. With the objective ``pointwise``, the template is ``would_like`` unless
    one is given. With a ``like_threshold``, the target behavior is ``like`` unless one is given.

    Raises:
        SettingsError: a key is unknown; the message names the nearest one.
    """
    of_training, of_settings = ({f.name for f in fields(c)} for c in (Training, Settings))
    check_keys(values, [*of_training, *of_settings])
    training = Training(**{k: v for k, v in values.items() if k in of_training})
    settings = Settings(**{k: v for k, v in values.items() if k in of_settings})
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
        SettingsError: the file cannot be read, or holds something else than settings.
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
        msg = f"{path} does not hold settings. Expected lines such as `lora_rank: 8`."
        raise SettingsError(msg)
    return values
