"""Run the demo that ``genrec demo`` shows, step by step on bundled data in English or Chinese.

Everything is done with the public methods of the recommender and the functions that print results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from genrec import runs
from genrec.baselines.counting import Popular
from genrec.cli.options import Given, ModelOptions
from genrec.cli.recommend import rails_to_dict, shows_rails
from genrec.cli.serve import serve_demo
from genrec.config import PROTOCOL, SHOWS, QueryOptions
from genrec.data import protocols
from genrec.data.dataset import Dataset
from genrec.data.datasets import load
from genrec.data.events import History
from genrec.errors import SettingsError
from genrec.evaluation import evaluator
from genrec.evaluation.evaluator import Case, Result
from genrec.models.packaged import DEFAULT_MODEL
from genrec.pipeline.types import RecommendationList
from genrec.recommender import Recommender
from genrec.reports import console, terminal
from genrec.reports.rails import print_rails, rail_titles
from genrec.runs import Run

_K = 10


@dataclass(frozen=True, slots=True)
class _Story:
    """The data and the wording of the demo in one language.

    Names in braces are placeholders. The text ``caution`` is printed first if the demo uses the
    default model.
    """

    dataset: str
    customer: str
    typed: str
    command: str
    protocol: str
    cases: Callable[[Dataset], list[Case]]
    caution: str
    loading: str
    data_heading: str
    data: str
    customer_heading: str
    event_columns: tuple[str, str]
    prompt_heading: str
    untrained: str
    answer_heading: str
    tuned_heading: str
    typed_heading: str
    asking: str
    evaluation_heading: str
    evaluation: str
    systems: Mapping[str, str]
    prior: str
    difference: str
    system: str
    metrics: Mapping[str, str]
    few: str
    end: str


_ENGLISH = _Story(
    dataset="online_retail_demo",
    customer="14198",
    typed="bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT; "
    "bought: Set/6 red spotty paper cups",
    command='genrec recommend DIR --history "{typed}"',
    protocol="demo-v1",
    cases=evaluator.demo_v1,
    caution="",
    loading="Loading {model} ...",
    data_heading="The data",
    data="{info.name}: {info.users:,} customers of a British gift shop, {info.items:,} products, "
    "{info.events:,} events from 2010-2011 (UCI Online Retail, CC BY 4.0).",
    customer_heading="Latest events of customer {customer}",
    event_columns=("event", "title"),
    prompt_heading="What the model reads (the prompt ends where the next title begins)",
    untrained="{model}, without fine-tuning or demonstrations",
    answer_heading="Ten recommendations for customer {customer}",
    tuned_heading="Recommendations after fine-tuning on earlier invoices of the shop "
    "({targets:,} titles, {run})",
    typed_heading="Recommendations for a history typed by hand",
    asking="Predicting {n} held-out purchases",
    evaluation_heading="Does the model predict what customers bought next?",
    evaluation="Protocol demo-v1 on a fixed sample of {n} of {all} customers, whose last invoice was "
    "held out.\nA hit means that the first item of the invoice is among the ten recommendations. "
    "Brackets show\n95% confidence intervals over customers.",
    systems={"zero-shot": "zero-shot", "tuned": "tuned", "popular": "popular"},
    prior=" + prior",
    difference="{one} minus {other}",
    system="system",
    metrics={
        "hit_rate@10": "hit rate@10",
        "ndcg@10": "NDCG@10",
        "recall@10": "recall@10 of the basket",
    },
    few="The intervals are wide because only {n} customers were sampled. benchmarks/LOG.md has the results for "
    "all 887.",
    end="The demo took {seconds:.0f} s with {model}.",
)

_CHINESE = _Story(
    dataset="zh_mini",
    customer="u01",
    typed="浏览：城市夜跑路线指南：沿河五公里；购买：轻量透气跑步鞋 男款；"
    "购买：不锈钢保温杯（７５０毫升）",
    command='genrec recommend DIR --language zh --history "{typed}"',
    protocol="last-out",
    cases=evaluator.last_out,
    caution="先说明：默认模型（1.35 亿参数）是英文模型，几乎读不懂中文，所以下面的排序和分数说明不了什么，"
    "只用来演示流程。\n要用能读中文的模型，请加 --model gemma3-270m（多语言，按需下载约 238 MB，"
    "须遵守 Gemma 使用条款，\n在 CPU 上慢几倍），或用 --model 指定更大的多语言模型"
    "（Hugging Face 模型名或本地文件夹）。\n"
    "In English: the default model (135M parameters) is an English model that can barely read Chinese, "
    "so the\nranking and the numbers below mean little; they only show how genrec works. For a model that "
    "reads Chinese,\nuse --model gemma3-270m (multilingual, downloads about 238 MB, Gemma Terms of Use, "
    "several times slower on a\nCPU), or give the Hub ID or folder of a larger multilingual model.",
    loading="正在加载 {model} ……",
    data_heading="数据",
    data="{info.name}：{info.users} 位用户、{info.items} 个条目（商品、新闻、视频、音乐、社交）、"
    "{info.events} 条行为。\n全部由 genrec 的作者编写，没有真实的人、店铺、品牌或行为（Apache-2.0）。",
    customer_heading="用户 {customer} 最近做了什么",
    event_columns=("行为", "标题"),
    prompt_heading="模型读到的内容（提示词到下一个标题开始处为止）",
    untrained="{model}，未经训练，也没有示例",
    answer_heading="给用户 {customer} 的十条推荐",
    tuned_heading="同样的问题，在更早的行为上微调之后（{targets:,} 个标题，{run}）",
    typed_heading="换成手写的历史，同样可以推荐",
    asking="正在预测 {n} 次留出的购买",
    evaluation_heading="它猜得到用户接下来买什么吗？",
    evaluation="评测方案 last-out：从 {all} 位用户中固定抽取 {n} 位，留出每人最后一次购买，"
    "看它在不在前十名里。\n方括号内是按用户计算的 95% 置信区间。数据是编写的，分数不代表真实效果。",
    systems={"zero-shot": "零样本", "tuned": "微调后", "popular": "热门商品"},
    prior=" + 协同先验",
    difference="{one} 减 {other}",
    system="方法",
    metrics={"hit_rate@10": "命中率@10", "ndcg@10": "NDCG@10"},
    few="用户只有 {n} 位，所以区间很宽；--users 60 评测全部用户。",
    end="共用时 {seconds:.0f} 秒，{model}",
)

_STORIES = {"en": _ENGLISH, "zh": _CHINESE}


@dataclass(frozen=True, slots=True)
class _Lists:
    """The recommendations for one history.

    ``rails`` holds a list of new items and a list of items to get again, if the data has both.
    """

    whole: RecommendationList
    rails: Mapping[str, RecommendationList]

    def to_dict(self) -> dict[str, Any]:
        """Return all lists as a dictionary that can be written as JSON."""
        more = {"rails": rails_to_dict(self.rails)} if self.rails else {}
        return self.whole.to_dict() | more


@dataclass(frozen=True, slots=True)
class _Voice:
    """A recommender shown in the demo, zero-shot or fine-tuned, with its recommendations."""

    name: str
    recommender: Recommender
    answer: _Lists


@dataclass(frozen=True, slots=True)
class _Report:
    """All results of the demo, as printed with ``--json``.

    ``voices`` lists the recommenders, and ``results`` contains their evaluations in the same order.
    A recommender with a prior has two evaluations, first of the model alone and then of the model
    with the prior. The evaluation of the popularity baseline comes last.
    """

    story: _Story
    caution: str
    voices: Sequence[_Voice]
    typed: _Lists
    results: Sequence[Result]


def run(
    model: str,
    users: int,
    *,
    run: str = "auto",
    language: str = "en",
    json: bool = False,
    **options: Any,
) -> None:
    """Run the demo and print its results.

    Args:
        model: the name, folder or Hub ID of the model; see ``LanguageModel.load``.
        users: the number of users in the small evaluation.
        run: a run folder to show in addition to the model without fine-tuning. ``auto`` uses the
            run shipped with the package if it fits the model and language; ``none`` shows no run.
        language: ``en`` for data from a British gift shop, ``zh`` for the made-up dataset
            ``zh_mini``.
        json: print a single JSON value at the end instead of text.
        **options: further options of ``Recommender``, such as ``device`` and ``prior``.

    Raises:
        GenrecError: the model or run cannot be loaded, or the language is unknown.
    """
    started = time.monotonic()
    story = _choose_story(language)
    caution = story.caution if model == DEFAULT_MODEL else ""
    dataset = load(story.dataset)
    if not json:
        _show_data(story, dataset, caution)
    tuned = _choose_run(run, model, story)
    known = protocols.withhold(dataset, "test")  # only the test part is predicted
    options["prior_events"] = "train+validation"  # the baseline counts the same events
    with console.working(story.loading.format(model=model), quiet=json) as log:
        recommender = Recommender(known, model, log=log, language=language, **options)
    history = recommender.history(story.customer, before="test")
    if not json:
        _show_customer(story, recommender)
    voices = [_ask(story, recommender, history, None, quiet=json)]
    if tuned is not None:
        with console.working(story.loading.format(model=tuned), quiet=json) as log:
            recommender = Recommender.load(tuned, known, log=log, **options)
        voices.append(_ask(story, recommender, history, tuned, quiet=json))
    if not json:
        _heading(story.typed_heading)
        which = ""
        if tuned is not None:  # --run takes the name of a shipped run, or the folder of another run
            name = runs.run_name(tuned)
            which = f" --run {name if runs.shipped_run(name) == tuned else tuned}"
        console.print_line(f"  {story.command.format(typed=story.typed)}{which}\n", "dim")
    typed = _recommend(recommender, story.typed, quiet=json)
    cases = story.cases(dataset)
    results = _evaluate(story, voices, evaluator.sample(cases, users))
    report = _Report(story, caution, voices, typed, results)
    if json:
        console.print_json(_to_dict(report))
        return
    _show_evaluation(report, len(cases))
    seconds = time.monotonic() - started
    console.note("\n" + story.end.format(seconds=seconds, model=recommender.model.describe()))


def serve(which: Given, settings: Given, *, run: str, language: str, port: int) -> None:
    """Serve the data of the demo over HTTP; see ``genrec serve``.

    Args:
        which: the options that choose the model.
        settings: the settings of the recommender.
        run: the run folder; ``auto`` for the shipped run if it fits the model, ``none`` for no run.
        language: the language of the data.
        port: the port.
    """
    story = _choose_story(language)
    model = which.pop("model") or DEFAULT_MODEL
    chosen = ModelOptions(model=model, run=_choose_run(run, model, story), **which)
    if chosen.run is not None:
        chosen = replace(chosen, model=None)
    spoken = Given({**settings, "language": language}, {"language", *settings.named})
    serve_demo(load(story.dataset), chosen, spoken, port)


def _choose_run(run: str, model: str, story: _Story) -> Path | None:
    """Find the folder of the fine-tuned run that the demo shows, or return None to show no run."""
    if run == "none":
        return None
    if run != "auto":
        return runs.find_run(run)
    shipped = runs.shipped_run(story.dataset)
    return shipped if shipped is not None and Run.read(shipped).base_model == model else None


def _ask(
    story: _Story, recommender: Recommender, history: History, run: Path | None, *, quiet: bool
) -> _Voice:
    if not quiet and (run is None or recommender.run is None):
        _heading(story.answer_heading.format(customer=story.customer))
    elif not quiet and run is not None and recommender.run is not None:
        _heading(
            story.tuned_heading.format(targets=recommender.run.targets, run=runs.run_name(run))
        )
    answer = _recommend(recommender, history, quiet=quiet)
    name = "zero-shot" if run is None else "tuned"
    return _Voice(name + (" + prior" if recommender.prior else ""), recommender, answer)


def _recommend(recommender: Recommender, history: History | str, *, quiet: bool) -> _Lists:
    """Recommend items as the command ``recommend`` does, and print them unless ``quiet``."""
    if not shows_rails(recommender, QueryOptions()):
        answer = recommender.recommend(history, _K)
        if not quiet:
            terminal.print_recommendations(answer)
        return _Lists(answer, {})
    rails = recommender.recommend_rails(history, _K, shows=SHOWS)
    whole = rails.pop("all")
    if not quiet:
        behavior = recommender.behavior
        titles = rail_titles(behavior, recommender.template.verb(behavior).base)
        print_rails(rails, titles)
    return _Lists(whole, rails)


def _choose_story(language: str) -> _Story:
    if language not in _STORIES:
        msg = f"There is no demo for language={language!r}. Expected one of: {', '.join(_STORIES)}."
        raise SettingsError(msg)
    return _STORIES[language]


def _heading(text: str) -> None:
    console.print_line(f"\n{text}", "bold green")


def _show_data(story: _Story, dataset: Dataset, caution: str) -> None:
    if caution:
        console.print_line(caution, "yellow")
    _heading(story.data_heading)
    console.print_line(story.data.format(info=dataset.info))


def _show_customer(story: _Story, recommender: Recommender) -> None:
    history = recommender.history(story.customer, before="test")
    _heading(story.customer_heading.format(customer=story.customer))
    catalog = recommender.catalog
    rows = [
        [recommender.template.verb(i.behavior).past, catalog[catalog.row(i.item_id)].title]
        for i in history.latest(5).interactions
        if i.item_id is not None
    ]
    console.print_table(story.event_columns, rows)
    _heading(story.prompt_heading)
    terminal.print_prompt(
        recommender.prompt(history),
        story.untrained.format(model=recommender.model.describe()),
    )


def _evaluate(story: _Story, voices: Sequence[_Voice], cases: list[Case]) -> list[Result]:
    asked: list[tuple[str, Recommender]] = []
    for voice in voices:
        if voice.recommender.prior is not None:  # also measure the model without its prior
            alone = voice.recommender.with_settings(prior="none")
            asked.append((voice.name.partition(" + ")[0], alone))
        asked.append((voice.name, voice.recommender))
    results = []
    for name, recommender in asked:
        with console.progress(story.asking.format(n=len(cases)), len(cases)) as bar:
            recommend = partial(_recommend_ids, recommender)
            results.append(evaluator.run(name, recommend, cases, progress=bar))
    ours = voices[0].recommender
    assert ours.dataset is not None
    baseline = Popular(ours.dataset.interactions, ours.behavior)

    def popular(history: History) -> Sequence[str]:
        return baseline.rank(history, _K, exclude_seen=ours.exclude_seen)

    return [*results, evaluator.run(baseline.name, popular, cases)]


def _recommend_ids(recommender: Recommender, history: History) -> list[str]:
    return [r.item_id for r in recommender.recommend(history, _K, options=PROTOCOL)]


def _show_evaluation(report: _Report, available: int) -> None:
    story, results = report.story, report.results
    n = len(results[0].cases)
    _heading(story.evaluation_heading)
    console.print_line(story.evaluation.format(n=n, all=available) + "\n")

    def label(result: Result) -> str:
        name, _, more = result.name.partition(" + ")
        return story.systems[name] + (story.prior if more else "")

    rows = [[label(r), *(str(r.mean(m)) for m in story.metrics)] for r in results]
    *_, best, popular = results
    for other in (popular, results[0]) if len(results) > 2 else (popular,):
        name = story.difference.format(one=label(best), other=label(other))
        rows.append([name, *(str(best.minus(other, m)) for m in story.metrics)])
    console.print_table([story.system, *story.metrics.values()], rows)
    console.print_line("\n" + story.few.format(n=n))


def _to_dict(report: _Report) -> dict[str, Any]:
    systems = {
        result.name: {
            m: {"mean": i.mean, "low": i.low, "high": i.high}
            for m in report.story.metrics
            for i in [result.mean(m)]
        }
        for result in report.results
    }
    *beside, last = report.voices
    return {
        "schema_version": 1,
        "dataset": report.story.dataset,
        "caution": report.caution,
        "customer": last.answer.to_dict(),
        "beside": {voice.name: voice.answer.to_dict() for voice in beside},
        "typed": report.typed.to_dict(),
        "evaluation": {
            "protocol": report.story.protocol,
            "users": len(report.results[0].cases),
            "systems": systems,
        },
    }
