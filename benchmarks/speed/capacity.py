"""Compute how many lists a device makes, and what a million users cost.

    python -m benchmarks.speed.capacity [--price-cpu 0.05 --price-gpu 4]

A list reads the tokens of the prompt and of the titles that the search looks at. A pass over T tokens takes
2 T (body + head at the last token) + 4 T^2 L D / 2 floating-point operations for L layers of width D. The rate of a core is
fitted to the measured lists of SmolLM2-135M in ``MEASURED``, so the rows of that model are measured and all others are computed. The
rate of the GPU is a share of the vendor's peak and was not measured.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

SEARCHED = 114  # tokens of titles that a list of 20 reads (benchmarks/LOG.md)
MEASURED = {
    71: 0.510,
    285: 1.030,
    1056: 3.322,
}  # prompt tokens: seconds of a core, K = 20, full attention
WARM = {71: 0.425, 285: 0.497, 1056: 0.715}  # by_event, none in full, warm store
GPU_PEAK = 989e12  # H200, bfloat16, dense, as the vendor states
GPU_SHARE = 0.3  # an assumption for batches of short passes


@dataclass(frozen=True, slots=True)
class Model:
    """The shape of a model: parameters of its layers and of its head, layers, and width."""

    name: str
    body: float
    head: float
    layers: int
    width: int

    def operations(self, prompt: int, searched: int = SEARCHED) -> float:
        """Return the floating-point operations of a list."""
        tokens = prompt + searched
        return (
            2 * tokens * self.body
            + 2 * searched * self.head
            + 2 * tokens**2 * self.layers * self.width
        )


MODELS = (
    Model("SmolLM2-135M", 106.2e6, 28.3e6, 30, 576),
    Model("Qwen3-0.6B", 440.5e6, 155.6e6, 28, 1024),
    Model("SmolLM2-1.7B", 1610.7e6, 100.7e6, 24, 2048),
)


def fit(measured: dict[int, float], model: Model) -> tuple[float, float]:
    """Fit seconds = fixed + operations / rate by least squares, and return the two."""
    xs = [model.operations(n) for n in measured]
    ys = list(measured.values())
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - mx) ** 2 for x in xs
    )
    return my - slope * mx, 1 / slope


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--price-cpu", type=float, default=0.05, help="price of a core for an hour")
    parser.add_argument("--price-gpu", type=float, default=4.0, help="price of a GPU for an hour")
    arguments = parser.parse_args()
    fixed, rate = fit(MEASURED, MODELS[0])
    print(f"one core: {fixed:.2f} s a list + operations / {rate / 1e9:.0f} GFLOPS")
    print(f"GPU, computed: operations / {GPU_PEAK * GPU_SHARE / 1e12:.0f} TFLOPS")
    for model in MODELS:
        for prompt in (64, 256, 1000):
            seconds = (
                max(fixed, 0) * model.layers / MODELS[0].layers + model.operations(prompt) / rate
            )
            gpu = model.operations(prompt) / (GPU_PEAK * GPU_SHARE)
            print(
                f"{model.name}, {prompt} tokens: core {1 / seconds:.2f} lists/s, a million {1e6 * seconds / 3600:,.0f} "
                f"core hours, {1e6 * seconds / 3600 * arguments.price_cpu:,.0f}; GPU {1 / gpu:,.0f} lists/s, a million "
                f"{1e6 * gpu / 3600:.2f} hours, {1e6 * gpu / 3600 * arguments.price_gpu:.2f}"
            )
    for prompt in MEASURED:
        print(
            f"SmolLM2-135M, {prompt} tokens, measured: {1 / MEASURED[prompt]:.2f} lists/s, warm by event {1 / WARM[prompt]:.2f}"
        )


if __name__ == "__main__":
    main()
