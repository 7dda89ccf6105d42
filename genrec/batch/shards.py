"""Answer the rows of one shard and write them to its files.

A shard is a fixed range of rows. Its results depend only on the job and its inputs, so a shard that is
computed again has the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genrec.batch.job import Job
from genrec.batch.rows import Row, Rows
from genrec.errors import DataError, ModelError, RequestError
from genrec.files import write_file
from genrec.models.openai import BudgetError
from genrec.pipeline.keywords import edits_of
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.recommender import Recommender
from genrec.taste.profile import Profile

_NUMBERS = ("score", "logprob", "logprob_model", "logprob_prior", "boost", "propensity")
_ITEM = pa.struct(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        *((name, pa.float64()) for name in _NUMBERS),
        ("pinned", pa.bool_()),
        ("group", pa.string()),
        ("explanation", pa.string()),
    ]
)
ANSWERS = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("items", pa.list_(_ITEM)),
        ("exact", pa.bool_()),
        ("certain_ranks", pa.int32()),
        ("missed_mass_bound", pa.float64()),
        ("prompt_tokens", pa.int32()),
        ("events", pa.int32()),
        ("notes", pa.list_(pa.string())),
    ]
)
PROFILES = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("text", pa.string()),
        ("interests", pa.list_(pa.string())),
        ("profile", pa.string()),
        ("events", pa.int32()),
        ("notes", pa.list_(pa.string())),
    ]
)
REJECTED = pa.schema([("row", pa.int64()), ("id", pa.string()), ("reason", pa.string())])


def answers_file(folder: Path, shard: int) -> Path:
    """Return the path of a shard's answers; the file exists if the shard is finished."""
    return folder / f"part-{shard:06d}.parquet"


def rejected_file(folder: Path, shard: int) -> Path:
    """Return the path of a shard's rejected rows; there is no file if no row was rejected."""
    return folder / f"rejected-{shard:06d}.parquet"


def count_rows(folder: Path, shard: int) -> dict[str, int] | None:
    """Return how many rows a finished shard answered and rejected; None if it is not finished.

    Raises:
        DataError: a file is damaged.
    """
    if not answers_file(folder, shard).exists():
        return None
    counts = {}
    for name, path in (
        ("rows", answers_file(folder, shard)),
        ("rejected", rejected_file(folder, shard)),
    ):
        try:
            counts[name] = pq.read_metadata(path).num_rows if path.exists() else 0
        except (pa.ArrowException, OSError) as error:
            msg = f"{path} cannot be read: {error}. Delete it to compute its rows again."
            raise DataError(msg) from error
    return counts


class ShardWriter:
    """Computes shards with one recommender.

    Attributes:
        job: the job.
        rows: all rows of the job.
        folder: the output folder.
    """

    def __init__(self, job: Job, rows: Rows, recommender: Recommender, folder: Path) -> None:
        self.job, self.rows, self.folder = job, rows, folder
        self._recommender, self._options = recommender, job.query()

    def write(self, shard: int) -> dict[str, int]:
        """Answer the rows of a shard and write its files.

        Returns:
            The number of ``rows`` that were answered and of rows that were ``rejected``.

        Raises:
            DataError: a file cannot be written.
            RequestError: no row at all can be answered, for example because an option is invalid.
        """
        if self._recommender.settings.recent is not None:
            # a line read together with others differs in the last bits, so that it depends on what came before
            self._recommender.model.forget_lines()
        start = shard * self.job.shard_size
        rows = list(self.rows.part(start, start + self.job.shard_size))
        rejected = [(r.number, r.name, r.problem) for r in rows if r.history is None]
        answers = []
        for row, answer in self._answer([r for r in rows if r.history is not None]):
            if isinstance(answer, str):
                rejected.append((row.number, row.name, answer))
            elif isinstance(answer, Profile):
                answers.append(self._profile_dict(row, answer))
            else:
                answers.append(_to_dict(row, answer))
        if rejected:
            rejected.sort()
            columns = [
                pa.array(c, f.type)
                for c, f in zip(zip(*rejected, strict=True), REJECTED, strict=True)
            ]
            _write(
                rejected_file(self.folder, shard), pa.Table.from_arrays(columns, schema=REJECTED)
            )
        schema = PROFILES if self.job.task == "profile" else ANSWERS
        _write(answers_file(self.folder, shard), pa.Table.from_pylist(answers, schema=schema))
        return {"rows": len(answers), "rejected": len(rejected)}

    def _answer(self, rows: Sequence[Row]) -> list[tuple[Row, RecommendationList | Profile | str]]:
        """Return each row with its list or profile, or with the reason why there is none."""
        if self.job.task == "profile":
            return [(row, self._profile(row)) for row in rows]
        if self.job.task == "score":
            return [(row, self._score(row)) for row in rows]
        if self.job.server:
            with ThreadPoolExecutor(self.job.concurrency) as pool:
                return list(zip(rows, pool.map(self._ask, rows), strict=True))
        lists = self._recommender.recommend_many(
            [row.history for row in rows if row.history is not None],
            batch_size=self.job.batch_size,
            options=self._options,
        )
        return [
            (
                row,
                answer if answer.recommendations else (answer.notes or ("the list is empty",))[-1],
            )
            for row, answer in zip(rows, lists, strict=True)
        ]

    def _ask(self, row: Row) -> RecommendationList | str:
        """Answer a row with a model behind a server, whose failures concern only this row."""
        assert row.history is not None
        try:
            answer = self._recommender.recommend(row.history, options=self._options)
        except BudgetError:
            raise
        except (ModelError, RequestError) as error:
            return str(error)
        return answer if answer.recommendations else (answer.notes or ("the list is empty",))[-1]

    def _profile(self, row: Row) -> Profile | str:
        assert row.history is not None
        try:
            return self._recommender.profile(row.history, edits=edits_of(self._options))
        except RequestError as error:
            return str(error)

    def _profile_dict(self, row: Row, made: Profile) -> dict[str, Any]:
        values = made.to_dict(self._recommender.catalog)
        return {
            "row": row.number,
            "id": row.name,
            "text": made.text.get(self._recommender.settings.language, ""),
            "interests": [one.keyword for one in made.interests],
            "profile": json.dumps(values, ensure_ascii=False),
            "events": len(made.history),
            "notes": [*row.notes, *made.notes],
        }

    def _score(self, row: Row) -> RecommendationList | str:
        assert row.history is not None
        try:
            return self._recommender.score(row.history, self.job.items, options=self._options)
        except RequestError as error:
            return str(error)


def _to_dict(row: Row, answer: RecommendationList) -> dict[str, Any]:
    certificate = answer.details.get("certificate", {})
    return {
        "row": row.number,
        "id": row.name,
        "items": [_item(r) for r in answer],
        "exact": certificate.get("exact"),
        "certain_ranks": certificate.get("certain_ranks"),
        "missed_mass_bound": certificate.get("missed_mass_bound"),
        "prompt_tokens": answer.prompt_tokens,
        "events": answer.events,
        "notes": [*row.notes, *answer.notes],
    }


def _item(one: Recommendation) -> dict[str, Any]:
    told = None if one.explanation is None else one.to_dict()["explanation"]
    return {
        "item_id": one.item_id,
        "title": one.title,
        **{name: getattr(one, name) for name in _NUMBERS},
        "pinned": one.pinned,
        "group": one.group,
        "explanation": None if told is None else json.dumps(told, ensure_ascii=False),
    }


def _write(path: Path, table: pa.Table) -> None:
    write_file(path, lambda work: pq.write_table(table, work, compression="zstd"))
