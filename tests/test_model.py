"""Loading a model, as far as no other test of models says it."""

from __future__ import annotations

import logging

import pytest

from genrec.model import quiet_transformers


def test_loading_is_quiet_and_leaves_logging_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    names = ("bitsandbytes.backends.cpu.ops", "huggingface_hub.file_download", "transformers.x")
    with quiet_transformers():
        for name in names:
            logging.getLogger(name).warning("not said")
    for name in names[:2]:
        logging.getLogger(name).warning("said")
    assert "not said" not in caplog.text
    assert caplog.text.count("said") == 2
