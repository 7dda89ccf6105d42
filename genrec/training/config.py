"""Training: how a model is trained, one frozen dataclass; an unknown key or a bad value is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from genrec.config import Settings, choice, kind, known_keys, to_before
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
        examples: a file of examples to learn from in place of the histories, as ``genrec examples``
            writes it.
        objective: ``next``: titles of next items; ``pointwise``: yes or no, whether somebody will
            want an item, as ``genrec likes`` asks. ``layout``, ``basket``, ``holdout`` and
            ``vocab_weight`` say nothing to the latter.
        negatives: with ``pointwise``: random items for each wanted one, none of the user's history
            or basket; None is 1, and with ``like_threshold`` 0.
        like_threshold: with ``pointwise``: items are wanted where an event's value (a rating, say)
            is at least this, and others with a value are not; the question is then whether they
            will like it. None is all with the target behavior.
        pairs_per_user: with ``pointwise``: of each user only the latest so many pairs are learned
            from; None for all.
        pairs: with ``pointwise``: a CSV, JSONL or Parquet file with the columns text and label (buy
            or not_buy, yes or no, 1 or 0) to learn from in place of the histories; every tenth
            row, drawn by ``seed``, is for validation.
        layout: ``history``: one user's history is one sequence in which every title is predicted;
            ``window``: one prompt and one target, as at inference, for templates whose header
            says ``targets: last`` too.
        basket: what the titles of a basket are. ``tree``: each is predicted from the history
            before the basket, as branches that do not see each other; ``first``: only the first
            one is predicted; ``as_is``: each sees those before it, which is basket completion.
            ``auto`` is ``tree`` where the data has baskets, else ``as_is``.
        behaviors: the only behaviors that histories show and that are predicted, such as
            ``("buy",)``; None for all.
        fit: ``train``, or ``both``, which is train and validation.
        holdout: the share of items that are no targets and not in the trie while training, to
            measure how the model does on items added later.
        replay: with new events: how many old targets are learned again for each new one.
        vocab_weight: how much the loss over the whole vocabulary counts beside the loss over the
            catalog's trie (which is nats per item and has weight 1). Above 0 the model stays able
            to write titles freely, for the decoder ``match`` and other servers, and learns more
            slowly which one comes next.
        label_smoothing: the share of a node's target that is spread over all its children.
        recency_half_life: days after which a target counts half; None for all the same.
        behavior_weights: behavior -> how much its targets count; 1 for the others.
        popularity_strength: targets count by their item's popularity to minus this power.
        lora_rank: of the adapter; 0 trains all weights.
        lora_alpha: its updates are scaled by alpha / rank.
        lora_dropout: of its inputs.
        dora: whether magnitudes are learned apart (DoRA).
        target_modules: which layers get an adapter: ``all-linear``, or names with commas between.
        learning_rate: the highest.
        warmup: the share of steps in which it rises.
        schedule: how it falls: ``cosine``, ``linear`` or ``constant``.
        weight_decay: of AdamW.
        max_grad_norm: gradients are cut to this norm.
        epochs: passes over the targets.
        max_targets: how many targets are learned from, to the next whole batch, in place of epochs.
        max_minutes: stops with a checkpoint, from which ``--resume`` goes on.
        batch_size: packs per step and device.
        accumulate: how many of these make one step of the optimiser.
        pack_tokens: the most tokens of a pack: users are put side by side until it is full.
        overlap: of a long history's windows, as a share of ``max_events``.
        gradient_checkpointing: less memory, a third more time.
        quantize: the base model's weights: ``none``, ``int8`` or ``nf4`` (QLoRA).
        protocol: how the events are split into what is learned and whom to validate on; None is the
            split of the data.
        eval_users: how many validation users are asked through the decoder.
        eval_every: targets between validations; None for ten in a run.
        patience: stops after so many validations without better nats; 0 for never.
        save_steps: steps between checkpoints; None for every ``save_minutes``.
        save_minutes: minutes between checkpoints.
        log_steps: steps between lines of the log.
        report_to: further trackers, such as ``tensorboard`` or ``wandb``, with commas between.
        seed: of the adapter's start, the order of the data and dropout.
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
        """Checks the values."""
        given: object = self.behaviors
        if isinstance(given, list):  # as YAML and JSON have it
            object.__setattr__(self, "behaviors", tuple(given))
        for f in fields(self):
            if f.name not in {"behaviors", "behavior_weights"}:
                kind(f.name, getattr(self, f.name), str(f.type))
        _check_behaviors(self.behaviors, self.behavior_weights)
        for name, choices in (
            ("objective", OBJECTIVES),
            ("layout", LAYOUTS),
            ("basket", BASKETS),
            ("fit", FITS),
            ("schedule", SCHEDULES),
            ("quantize", QUANTIZE),
        ):
            choice(name, getattr(self, name), choices)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:  # which NaN is not either
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
            msg = f"quantize={self.quantize!r} with lora_rank=0, which trains all weights. Expected a rank."
            raise SettingsError(msg)
        self._check_objective()
        if self.layout == "window" and self.basket in {"tree", "as_is"}:
            msg = (
                f"layout='window' with basket={self.basket!r}. Expected basket='first' for the "
                "first title of each basket, or 'auto' for each."
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
                    f"{name}={value!r} with objective={self.objective!r}. Expected it with "
                    "objective='pointwise' only; drop it, or give that objective."
                )
                raise SettingsError(msg)
        if self.objective == "pointwise" and self.examples is not None:
            msg = (
                f"examples={self.examples!r} with objective='pointwise', which learns from labels. "
                "Expected pairs, a file with the columns text and label."
            )
            raise SettingsError(msg)
        if self.negatives == 0 and self.like_threshold is None and self.pairs is None:
            msg = (
                "negatives=0, and nothing else says what is not wanted. Expected 1 or more, or a "
                "like_threshold."
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
        msg = f"behaviors={behaviors!r}. Expected names such as ('buy',), or None for all."
        raise SettingsError(msg)
    if not isinstance(weights, Mapping) or not all(
        isinstance(w, int | float) and w >= 0 for w in weights.values()
    ):
        msg = (
            f"behavior_weights={weights!r}. Expected behaviors and numbers from 0, as {{'buy': 2}}."
        )
        raise SettingsError(msg)


def describe_settings() -> dict[str, str]:
    """What each setting of ``Training`` is, from its docstring."""
    lines = (Training.__doc__ or "").partition("Attributes:")[2].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.strip()
        if line.startswith("        ") and not line.startswith("         ") and ":" in text:
            name, _, text = text.partition(":")
        if name and text:
            found[name] = f"{found.get(name, '')} {text.strip()}".strip().replace("``", "")
    return found


def resolve(values: Mapping[str, Any]) -> tuple[Settings, Training]:
    """Both kinds of settings from one mapping, as a YAML file or the command line has them.

    ``seed`` is of both. With the objective ``pointwise`` the template is ``would_like`` where none
    is said, and with a ``like_threshold`` what is asked is ``like``.

    Raises:
        SettingsError: a key is neither's; the message names the nearest one.
    """
    ours, theirs = ({f.name for f in fields(c)} for c in (Training, Settings))
    known_keys(values, [*ours, *theirs])
    training = Training(**{k: v for k, v in values.items() if k in ours})
    settings = Settings(**{k: v for k, v in values.items() if k in theirs})
    if training.objective == "pointwise":
        liked = "like" if training.like_threshold is not None else None
        settings = replace(
            settings,
            template=settings.template or "would_like",
            target_behavior=settings.target_behavior or liked,
        )
    return settings, training


def read(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        SettingsError: there is no such file, or it is no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path} cannot be read as YAML: {error}. Expected lines such as `lora_rank: 8`."
        raise SettingsError(msg) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        msg = f"{path} holds {type(values).__name__}. Expected lines such as `lora_rank: 8`."
        raise SettingsError(msg)
    return values
