"""Generate the interactions of the embedded zh_mini from its hand-written items.csv.

    python scripts/make_zh_mini.py

There are sixty invented users with one to three topics each. A session stays with one topic: a user
searches, browses and buys, or reads, watches, listens and follows. No item occurs twice in a
history, and nobody buys two variants of one product. The same seed gives the same file.
"""

from __future__ import annotations

import csv
import random
from datetime import datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "genrec" / "data" / "samples" / "zh_mini"
USERS = 60
SEED = 20240301
COLUMNS = ("user_id", "item_id", "timestamp", "behavior", "value", "text")
BEHAVIORS = {"新闻": "read", "视频": "watch", "音乐": "listen", "社交": "follow"}
VALUES = {"read": (1, 9), "watch": (3, 25), "listen": (1, 6)}  # minutes, minutes, times
SEARCHES = {
    "跑步": ("跑步鞋怎么选", "夜跑装备"),
    "烘焙": ("面包粉 高筋", "吐司 新手"),
    "露营": ("露营 清单", "防雨帐篷"),
    "育儿": ("宝宝辅食 工具", "学步鞋 推荐"),
    "摄影": ("三脚架 轻便", "存储卡 多大够用"),
    "编程": ("机械键盘 办公", "Python 自学"),
    "养猫": ("猫砂 不起尘", "第一次养猫要买什么"),
    "吉他": ("吉他弦 换弦", "民谣吉他 入门"),
    "园艺": ("阳台种花 土", "月季 新手"),
    "瑜伽": ("瑜伽垫 厚度", "肩颈 放松"),
    "骑行": ("公路车 外胎", "通勤 头盔"),
    "喝茶": ("盖碗 不烫手", "绿茶 自己喝"),
    "咖啡": ("手冲 入门套装", "保温杯 大容量"),
    "钓鱼": ("溪流竿 长度", "鱼线 几号"),
    "书法": ("毛笔 初学", "字帖 楷书"),
    "家常菜": ("炒锅 不粘", "快手菜 晚饭"),
}
COMMENTS = {
    "buy": ("包装结实，第二天就到了", "和描述一致，会回购", "价格合适，先用着看", "朋友推荐的，确实好用"),
    "read": ("写得很实在", "有用，先收藏了"),
    "watch": ("跟着做了一遍，成功了", "讲得清楚，适合新手"),
    "listen": ("循环一下午", "很放松"),
}  # fmt: skip

Item = dict[str, str]


class Diary:
    """Collect one user's events as they happen."""

    def __init__(self, user_id: str, items: list[Item], rng: random.Random) -> None:
        self.user_id = user_id
        self.items = items
        self.rng = rng
        self.rows: list[list[str]] = []
        self.had: set[str] = set()
        self.time = datetime(2024, 1, 1) + timedelta(days=rng.randrange(60))

    def new(self, topic: str, goods: bool) -> list[Item]:
        """Return a topic's products, or its other items, that are not yet in the diary."""
        return [
            i
            for i in self.items
            if i["topic"] == topic
            and (i["category"] == "商品") == goods
            and i["item_id"] not in self.had
        ]

    def add(self, behavior: str, item: Item | None, text: str = "") -> None:
        """Add an event a few minutes after the last one."""
        self.time += timedelta(minutes=self.rng.randint(2, 15))
        value = ""
        if behavior in VALUES and self.rng.random() < 0.5:
            value = str(self.rng.randint(*VALUES[behavior]))
        if behavior in COMMENTS and self.rng.random() < 0.12:
            text = self.rng.choice(COMMENTS[behavior])
        item_id = item["item_id"] if item else ""
        self.had.add(item_id)
        when = self.time.isoformat(timespec="minutes")
        self.rows.append([self.user_id, item_id, when, behavior, value, text])

    def begin(self) -> None:
        """Move on to another day."""
        day = self.time.date() + timedelta(days=self.rng.randint(1, 6))
        self.time = datetime(day.year, day.month, day.day, self.rng.randint(7, 21))

    def shop(self, topic: str) -> None:
        """Add a purchase, perhaps after a search and a look at another product of the topic."""
        bought = {i["title"].split()[0] for i in self.items if self._bought(i)}
        wanted = [i for i in self.new(topic, True) if i["title"].split()[0] not in bought]
        if not wanted:
            return
        item = self.rng.choice(wanted)
        self.begin()
        if self.rng.random() < 0.15:
            self.add("search", None, self.rng.choice(SEARCHES[topic]))
        others = [i for i in self.new(topic, True) if i is not item]
        if others and self.rng.random() < 0.7:
            self.add("browse", self.rng.choice(others))
        self.add("buy", item)

    def _bought(self, item: Item) -> bool:
        return any(r[1] == item["item_id"] and r[3] == "buy" for r in self.rows)

    def rest(self, topic: str) -> None:
        """Add one or two items to read, watch, hear or follow."""
        items = self.new(topic, False)
        if not items:
            return
        self.begin()
        for item in self.rng.sample(items, min(len(items), self.rng.randint(1, 2))):
            self.add(BEHAVIORS[item["category"]], item)


def diary(user_id: str, items: list[Item], rng: random.Random) -> list[list[str]]:
    """Return the 12 to 20 events of one user; the last one is a purchase."""
    topics = rng.sample(list(SEARCHES), rng.choice((1, 2, 2, 3)))
    length = rng.randint(14, 20)
    while True:
        book = Diary(user_id, items, rng)
        for _ in range(40):
            if len(book.rows) >= length - 3:
                break
            topic = rng.choices(topics, (4, 3, 2)[: len(topics)])[0]
            (book.shop if rng.random() < 0.5 else book.rest)(topic)
        book.shop(rng.choices(topics, (4, 3, 2)[: len(topics)])[0])
        behaviors = [r[3] for r in book.rows]
        sound = 12 <= len(behaviors) <= 20 and behaviors.count("buy") >= 3
        if sound and behaviors[-1] == "buy":
            return book.rows


def main(path: Path = FOLDER / "interactions.csv") -> None:
    """Write the interactions file."""
    with (FOLDER / "items.csv").open(encoding="utf-8", newline="") as stream:
        items = list(csv.DictReader(stream))
    rng = random.Random(SEED)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number in range(1, USERS + 1):
            writer.writerows(diary(f"u{number:02d}", items, rng))


if __name__ == "__main__":
    main()
