from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support import tiny
from support.commands import Run
from support.made_shop import made

from genrec import Catalog, Item
from genrec.baselines import registry
from genrec.data.titles import TitleForm
from genrec.errors import ModelError
from genrec.matching import hidden_states, vectors
from genrec.prompts.encoder import Encoder

TITLES = ["red mug", "red mug with a very long name of many words and numbers 1 2 3 4", "书籍",
          "red mug", "<|endoftext|> chair", "paper chain kit 50's christmas"]  # fmt: skip
CATALOG = Catalog([Item(str(n), title) for n, title in enumerate(TITLES)])


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("tokens", [4_096, 60, 1])
def test_states_are_those_of_titles_read_one_by_one(
    kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden_states, "_TOKENS", tokens)
    language_model = tiny.language_model(kind)
    encoder = Encoder(language_model.tokenizer, TitleForm())
    means = []
    for ids in encoder.titles(CATALOG):
        with torch.inference_mode():
            states = language_model.model(
                torch.tensor([[*encoder.start, *ids]]), output_hidden_states=True
            ).hidden_states[-1]
        means.append(states[0].mean(dim=0).numpy())
    centred = np.stack(means) - np.mean(means, axis=0)
    wanted = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    done: list[int] = []
    found = hidden_states.title_states(language_model, CATALOG, done.append)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert np.array_equal(found[0], found[3])
    assert done[-1] == 5
    assert len(done) == {4_096: 1, 1: 5}.get(tokens, len(done))


def test_a_language_model_embeds_for_others(
    run: Run, data: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.parquet"
    code, said, err = run("embed", data, "--items", "--encoder", f"lm:{model}", "--out", out)
    assert code == 0, err
    assert said.startswith("3 vectors of 32 numbers")
    assert np.linalg.norm(pq.read_table(out)["vector"].to_pylist(), axis=1) == pytest.approx(
        1.0, abs=1e-5
    )
    code, _, err = run("embed", data, "--items", "--encoder", "lm:nothing", "--out", out)
    assert code == 5
    assert "Model 'nothing'" in err


def test_baselines_take_a_language_model(model: Path) -> None:
    dataset = made()
    encoder = f"lm:{model}"
    states = vectors.item_vectors(dataset, encoder)
    assert states.shape == (24, 32)
    content = registry.fit("content", dataset, encoder=encoder)
    assert content.arrays["vectors"] == pytest.approx(states)
    net = registry.fit("textseq", dataset, encoder=encoder, hidden=8, epochs=1)
    assert net.arrays["net.titles"] == pytest.approx(states)
    with pytest.raises(ModelError, match="'nothing'"):
        registry.fit("content", dataset, encoder="lm:nothing")
