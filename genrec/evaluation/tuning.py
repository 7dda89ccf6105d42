"""Fit the weight of the prior and the node temperature on validation users.

The model processes the history of each user only once (see ``scoring_pass``). The parameters are
then fitted to the stored logits without running the model again.

With ``fusion='node'``, the probability of an item is the product of the probabilities of the
choices on its path. The logits at each choice are a * (model's logits) + b * (log of the prior's
mass), where a is 1 / temperature and b is the weight. The log-likelihood of the targets is
therefore concave in a and b. A penalty, which has the influence of a few users, keeps the fit close
to the values fitted to the bundled sample if there is little data. With ``fusion='score'``, only
the order of candidates matters, and the parameters are found by a grid search.

Instead of being fused, the model's log-probability can be a feature by which the prior's best items
are ranked again; see ``genrec.priors.model_feature``.

The model ranks items only if this is shown to improve the lists of the prior: the targets must be
more probable than under the prior with a fitted exponent, beyond chance, and NDCG@10 must not be
lower. If this holds for both ways, the one with the higher NDCG@10 is chosen. Otherwise, the prior
ranks items alone, and the model only explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.config import EXPLAIN, FEATURE, FUSE, MOST_WEIGHT
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.protocols import Case
from genrec.decoding.trie import TitleTrie
from genrec.errors import RequestError, SettingsError
from genrec.evaluation import bootstrap, metrics
from genrec.evaluation.scoring_pass import ScoringPass, score_user
from genrec.priors.fusion import TEMPERATURES
from genrec.priors.model_feature import fit_exponents
from genrec.priors.tuned import WEIGHTS, Tuned
from genrec.recommender import Recommender
from genrec.types import FloatArray, IntArray

USERS = 200
AT = 10
_LEAST, _MOST = 0.011, 90.0  # the bounds of 1 / temperature
_TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0)  # for fusion by score; higher ones flatten too much
_WEIGHTS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0)
_ROUNDS = 100
_SAMPLE_USERS = 20  # the values fitted to the bundled sample count like this many users; see LOG.md
_ENOUGH = 50  # with fewer users than this, the kind of fusion is not chosen, but is by node
_DRAWS = 2000  # number of bootstrap samples that decide whether the model ranks
POWER = "power"  # the prior alone with a fitted exponent, in the figures of ``Tuned``


def fit_node(
    passes: Sequence[ScoringPass], *, with_model: bool = True
) -> tuple[float, float, float]:
    """Fit the temperature and the prior's weight for ``fusion='node'``.

    The fitted values maximize the likelihood of the targets, with a penalty for moving away from
    the values fitted to the bundled sample. The penalty has the influence of ``_SAMPLE_USERS`` more
    users for whom these values are optimal. Its curvature is computed from the given passes.

    Args:
        passes: the logits of each user.
        with_model: False to fit the prior's weight only, as if the model had no preferences.

    Returns:
        1 / temperature, the weight of the prior, and the targets' mean negative log-probability.
        Without the model, the first value has no meaning.
    """
    chosen = [each.path() for each in passes]
    logits, mass, start, taken, before = [], [], [], [], 0
    for each, (choices, took) in zip(passes, chosen, strict=True):
        bounds = np.append(each.start, len(each.logits))
        for choice, child in zip(choices.tolist(), took.tolist(), strict=True):
            part = slice(bounds[choice], bounds[choice + 1])
            logits.append(each.logits[part] * with_model)
            mass.append(each.mass[part])
            start.append(before)
            taken.append(before + child - int(bounds[choice]))
            before += len(logits[-1])
    columns = np.stack([np.concatenate(logits), np.concatenate(mass)], axis=1)
    return _maximize_likelihood(columns, np.array(start), np.array(taken), len(passes))


def fit_score(passes: Sequence[ScoringPass]) -> tuple[float, float]:
    """Fit the temperature and the prior's weight for ``fusion='score'``.

    A grid search maximizes NDCG@10 over the best items of the model and the prior. The values of
    neighboring grid points are summed to reduce the influence of noise.

    Args:
        passes: the logits of each user.

    Returns:
        The temperature and the weight of the prior.
    """
    grid = np.empty((len(_TEMPERATURES), len(_WEIGHTS)))
    for row, temperature in enumerate(_TEMPERATURES):
        alone = [each.logprobs(1 / temperature, 0.0) for each in passes]
        for column, weight in enumerate(_WEIGHTS):
            pairs = zip(passes, alone, strict=True)
            scores = [values + weight * each.prior for each, values in pairs]
            grid[row, column] = ndcg(passes, scores).mean()
    around = np.pad(grid, 1, mode="edge")
    shape = grid.shape
    smooth = sum(
        around[down : down + shape[0], right : right + shape[1]]
        for down in range(3)
        for right in range(3)
    )
    best = divmod(int(np.argmax(smooth)), shape[1])
    return _TEMPERATURES[best[0]], _WEIGHTS[best[1]]


def _maximize_likelihood(
    columns: FloatArray, start: IntArray, taken: IntArray, users: int
) -> tuple[float, float, float]:
    """Find the factors a and b of the model's and the prior's logits that maximize the likelihood.

    Args:
        columns: (C, 2) the logits of the model and of the prior for each of C children.
        start: (L,) the index of the first child of each of L choices.
        taken: (L,) the index of the child that was taken at each choice.
        users: the number of users that the choices come from.

    Returns:
        a, b, and the mean negative log-probability of the targets per user, in nats.
    """
    from scipy.optimize import minimize

    source = np.repeat(np.arange(len(start)), np.diff(start, append=len(columns)))

    def shares(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the probability of each child, and the log of the normalizer of each choice."""
        peak = np.maximum.reduceat(x, start)
        share = np.exp(x - peak[source])
        total = np.add.reduceat(share, start)
        return share / total[source], peak + np.log(total)

    def nats(values: FloatArray) -> tuple[float, FloatArray]:
        x = columns @ values
        share, norm = shares(x)
        slope = (share @ columns - columns[taken].sum(axis=0)) / users
        return float((norm - x[taken]).sum() / users), slope

    usual = np.array([1 / TEMPERATURES["node"], WEIGHTS["node"]])
    share, _ = shares(columns @ usual)
    mean = np.add.reduceat(share[:, None] * columns, start)
    apart = columns - mean[source]
    bend = (share[:, None] * apart).T @ apart / users * (_SAMPLE_USERS / users)

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        value, slope = nats(values)
        moved = values - usual
        return value + float(moved @ bend @ moved) / 2, slope + bend @ moved

    optimum = minimize(
        loss,
        np.array([0.3, 0.5]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST, _MOST), (0.0, float(MOST_WEIGHT))],
        options={"maxiter": _ROUNDS},
    )
    return float(optimum.x[0]), float(optimum.x[1]), nats(optimum.x)[0]


def ndcg(passes: Sequence[ScoringPass], scores: Sequence[FloatArray]) -> FloatArray:
    """Compute NDCG@10 of each user's target among the user's candidates.

    The first candidate is the target. Other candidates with the same score are ranked above it.
    """
    ranks = []
    for each, values in zip(passes, scores, strict=True):
        better = each.allowed & (values >= values[0])
        ranks.append(int(better[1:].sum()) + 1 if each.listed else 0)
    return np.asarray(metrics.ndcg(ranks, AT), dtype=np.float64)


def fused_scores(
    fit: Sequence[ScoringPass], passes: Sequence[ScoringPass]
) -> dict[str, list[FloatArray]]:
    """Score candidates with both kinds of fusion, using parameters fitted on other users.

    For comparison, the candidates are also scored by the prior with a fitted exponent.

    Args:
        fit: the passes to which the temperature and the weight are fitted.
        passes: the passes of the users whose candidates are scored.

    Returns:
        For each kind of fusion, for the role ``feature`` and for ``POWER``, the scores of each user's candidates.
    """
    a, b, _ = fit_node(fit)
    _, power, _ = fit_node(fit, with_model=False)
    temperature, weight = fit_score(fit)
    exponents = fit_exponents([c for each in fit for c in each.choices()])
    return {
        POWER: [each.logprobs(0.0, power) for each in passes],
        FEATURE: [each.rerank(exponents) for each in passes],
        "node": [each.logprobs(a, b) for each in passes],
        "score": [each.logprobs(1 / temperature, 0.0) + weight * each.prior for each in passes],
    }


def fit_fusion(recommender: Recommender, passes: Sequence[ScoringPass]) -> Tuned:
    """Fit both kinds of fusion to the logits of validation users, and choose the better kind.

    The role of the model is chosen, too; see the module's docstring. The users are split into two
    halves. On each half, the loss in nats and NDCG are measured with parameters that were fitted to
    the other half. If the same users were used for fitting and
    measuring, the NDCG would be too high. With fewer than ``_ENOUGH`` users, ``node`` is
    chosen, and the role remains open.

    Args:
        recommender: the recommender for which the values are fitted.
        passes: the logits of each user.
    """
    a, b, _ = fit_node(passes)
    temperature, weight = fit_score(passes)
    scores: dict[str, list[FloatArray]] = {
        "model": [each.logprobs(1.0, 0.0) for each in passes],
        "prior": [each.prior for each in passes],
    }
    halves = (passes[::2], passes[1::2]) if len(passes) > 1 else (passes, passes)
    for name in (POWER, FEATURE, *WEIGHTS):
        scores[name] = [np.empty(0)] * len(passes)
    for first, (own, other) in enumerate((halves, halves[::-1])):
        for name, values in fused_scores(other, own).items():
            scores[name][first::2] = values[: len(scores[name][first::2])]
    stated = ("model", "prior", POWER, FEATURE, "node")
    each = {n: np.array([-v[0] for v in scores[n]]) for n in stated}
    nats = {name: float(values.mean()) for name, values in each.items()}
    means = {name: float(ndcg(passes, values).mean()) for name, values in scores.items()}
    fusion = "score" if len(passes) >= _ENOUGH and means["score"] > means["node"] else "node"
    role = "auto"  # with few users, nothing can be shown
    if len(passes) >= _ENOUGH:
        shown = {FUSE: fusion, FEATURE: FEATURE}
        gains = {}
        for name, measured in shown.items():
            loss = each["node" if name == FUSE else FEATURE]
            gain = bootstrap.bootstrap(each[POWER] - loss, draws=_DRAWS)
            if gain.low > 0 and means[measured] >= means["prior"]:
                gains[name] = means[measured]
        role = max(gains, key=lambda name: gains[name]) if gains else EXPLAIN
    best = fit_exponents([c for one in passes for c in one.choices()])
    return Tuned(
        recommender.tuning_key(),
        recommender.model.name,
        fusion,
        {"node": round(b, 4), "score": weight},
        {"node": round(1 / a, 4), "score": temperature},
        len(passes),
        {name: round(value, 4) for name, value in nats.items()},
        {name: round(value, 4) for name, value in means.items()},
        len(recommender.catalog),
        role,
        {"prior": round(best.prior, 4), "model": round(best.model, 4)},
    )


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Users to fit the weights on, and a dataset that does not contain their targets.

    Attributes:
        known: the dataset to which the parts of the prior are fitted.
        cases: the users.
    """

    known: Dataset
    cases: Sequence[Case]


def tune(
    recommender: Recommender,
    *,
    users: int | None = USERS,
    protocol: str | None = None,
    seed: int = 0,
    going: Callable[[int], bool] = lambda done: True,
) -> Tuned:
    """Fit the weight of the prior, the node temperature and the kind of fusion on validation users.

    The prior is based only on the train part, and the test part is not used. If there are fewer
    than ``_ENOUGH`` validation users, targets are held out from the train part (see
    ``protocols.with_validation``), and the prior is based only on the events before them. This is
    not possible for a fine-tuned model, because it was trained on the train part.

    Args:
        recommender: a recommender with a dataset. Its model, prompt and collaborative prior are used.
        users: the size of a random sample of users; None for all users.
        protocol: one of ``protocols.NAMES``; None chooses the protocol that matches the dataset's
            split.
        seed: the random seed of the sample.
        going: a function that gets the number of users done, and returns False to skip the others.

    Raises:
        SettingsError: the recommender has no dataset, or there are no events for the prior.
        RequestError: there are no validation users, or the catalog has been edited.
    """
    recommender = recommender.for_tuning()
    held = hold_out(recommender, protocol)
    return fit_fusion(recommender, collect(recommender, held, users=users, seed=seed, going=going))


def hold_out(recommender: Recommender, protocol: str | None = None) -> HeldOut:
    """Return the users to fit the weights on, as described in ``tune``, which raises the same errors."""
    dataset = recommender.dataset
    if dataset is None:
        msg = "Tuning needs validation users, but there is no dataset. Create the recommender with one."
        raise SettingsError(msg)
    protocol = protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    if recommender.run is None:
        dataset = protocols.with_validation(dataset, _ENOUGH)
    try:
        cases = protocols.cases(dataset, protocol, "validation")
    except RequestError as error:
        if recommender.run is None:
            raise
        msg = (
            f"{error} No targets can be held out from the train part, because the run was trained on it. "
            "Prepare the data with --split last-unit, then train and tune on it."
        )
        raise RequestError(msg) from None
    return HeldOut(protocols.withhold(dataset, "validation"), cases)


def collect(
    recommender: Recommender,
    held: HeldOut,
    *,
    users: int | None = USERS,
    seed: int = 0,
    going: Callable[[int], bool] = lambda done: True,
) -> list[ScoringPass]:
    """Collect the model's logits for a random sample of users; see ``tune`` for the arguments.

    Raises:
        RequestError: the catalog has been edited.
    """
    recommender = recommender.with_settings(
        data=held.known,
        prior="collaborative",
        prior_events="train",
        normalization="catalog",
        decoder="trie",
        search="auto",
    )
    if not isinstance(recommender.trie, TitleTrie):
        msg = (
            "The recommender's catalog has been edited. Expected the catalog of the dataset. Create "
            "a new recommender."
        )
        raise RequestError(msg)
    cases = protocols.sample(held.cases, users, seed)
    passes = {}  # in random order, so that the users that are left out are a random part
    for place in np.random.default_rng(seed).permutation(len(cases)).tolist():
        passes[place] = score_user(recommender, cases[place].history, cases[place].target)
        if not going(len(passes)):
            break
    return [passes[place] for place in sorted(passes)]
