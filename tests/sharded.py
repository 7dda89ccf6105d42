"""scripts/train.py with FSDP on CPUs.

accelerate shards on accelerators only, so its word for the kind of machine is changed here; all else
is its own, by its own configuration.
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
    runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "train.py"), run_name="__main__")
