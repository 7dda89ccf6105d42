"""Test that models load quietly and without optional packages."""

from __future__ import annotations

import logging

import pytest

from genrec.models.quiet import quiet_transformers


def test_loading_is_quiet_and_leaves_logging_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    names = ("bitsandbytes.backends.cpu.ops", "huggingface_hub.file_download", "transformers.x")
    with quiet_transformers():
        for name in names:
            logging.getLogger(name).warning("not said")
    for name in names[:2]:
        logging.getLogger(name).warning("said")
    assert "not said" not in caplog.text
    assert caplog.text.count("said") == 2


def test_no_optional_package_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    said = logging.getLogger("bitsandbytes.backends.cpu.ops")
    said.warning("Failed: %s. Please make sure you already `pip install kernels`", "no such module")
    said.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]
