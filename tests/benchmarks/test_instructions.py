"""What the page says of the instruction counts by clang is what the file of counts has."""

import re
import tomllib
from pathlib import Path

from harness import summary

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COUNTS = tomllib.loads((BENCHMARKS / "instructions.toml").read_text())["counts"]


def test_the_ratios_of_clang_are_those_of_the_counts():
    ratios = {(count["op"], count["layer"]): count["avx2_clang"] / count["avx2"] for count in COUNTS}
    convolutions = [ratio for (op, _), ratio in ratios.items() if op in ("fprop", "dgrad", "wgrad")]
    pooling = [ratio for (op, _), ratio in ratios.items() if "pool" in op]
    page = (BENCHMARKS / "README.md").read_text()
    said = re.findall(
        r"take (\S+) times .* over the (\d+) ops: (\S+) over the convolutions and (\S+) over pooling\.\n"
        r"The largest ratio is (\S+),",
        page.replace("\nthey", " they"),
    )
    means = [summary.geometric_mean(part) for part in (list(ratios.values()), convolutions, pooling)]
    every, conv, pool = (f"{mean:.2f}" for mean in means)
    assert said == [(every, str(len(ratios)), conv, pool, f"{max(ratios.values()):.2f}")]
    largest = [op for (op, _), ratio in ratios.items() if f"{ratio:.2f}" == said[0][4]]
    assert largest == ["avg_pool_grad", "bgrad"]
