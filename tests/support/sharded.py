"""Run scripts/train.py with FSDP on CPUs.

accelerate shards weights on accelerators only. So the kind of machine that it detects is replaced
here; everything else is accelerate's own, as it is configured.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

_first = PartialState.__init__


def _init(self: PartialState, *arguments: Any, **options: Any) -> None:
    _first(self, *arguments, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = _init
    runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "train.py"), run_name="__main__")
