"""The README's training step runs as printed and learns; its figures are the committed results."""

import json
import re
from pathlib import Path

import chart
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import report
from harness import summary
from harness.tasks import ARITHMETICS

ROOT = Path(__file__).parents[2]

README = (ROOT / "README.md").read_text()
SUPPORT = (ROOT / "docs" / "support.md").read_text()
RESULTS = json.loads((ROOT / "docs" / "performance" / "results.json").read_text())


def test_the_training_step_learns():
    installing, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert installing == "import jax_convgrad; jax_convgrad.install()\n"
    readme = {}
    exec(code, readme)

    rng = np.random.default_rng(0)
    labels = jnp.array(rng.integers(0, 3, 24), jnp.int32)
    images = rng.normal(size=(24, 6, 6, 2)) + np.arange(-1, 2)[np.asarray(labels), None, None, None]
    images = jnp.array(images, jnp.float32)
    params = {
        "w": jnp.array(rng.normal(size=(3, 3, 2, 4)) / 3, jnp.float32),
        "b": jnp.zeros(4, jnp.float32),
        "linear": jnp.array(rng.normal(size=(36, 3)) / 6, jnp.float32),
    }

    def lax_loss(params):
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(images, params["w"], (1, 1), "SAME", dimension_numbers=dims)
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(
            jax.nn.relu(y + params["b"]), -jnp.inf, jax.lax.max, window, window, "VALID"
        )
        logits = x.reshape(24, -1) @ params["linear"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    grads = jax.grad(readme["loss_fn"])(params, images, labels)
    for name, expected in jax.grad(lax_loss)(params).items():
        np.testing.assert_allclose(grads[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)

    opt_state = readme["optimizer"].init(params)
    first_loss = lax_loss(params)
    losses = []
    for _ in range(60):
        params, opt_state, loss = readme["train_step"](params, opt_state, images, labels)
        losses.append(float(loss))
    assert losses[0] == pytest.approx(float(first_loss), rel=1e-6)
    assert losses[-1] < losses[0] / 2


def row(first):
    """The other cells of the README's table row that begins with ``first``."""
    ((cells),) = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", README, re.MULTILINE)
    return [cell.strip() for cell in cells.split("|")]


def test_the_headline_figures_are_the_committed_results():
    means = dict(summary.means(RESULTS))

    def pair(ratios):
        return [report.times(ratios[peer]) for peer in ("lax", "torch")]

    assert row("convolution: forward, dX, dW") == pair(means["all of conv"])
    assert row("pooling, forward and gradient") == pair(means["all of pool"])
    assert row("bias gradient") == pair(means["all of bias"])
    ours, lax, torch = (RESULTS["training"][who]["seconds"]["median"] for who in ("ours", "lax", "torch"))
    assert row(f"a training step ({report.duration(ours)} ms)") == pair(
        {"lax": lax / ours, "torch": torch / ours}
    )
    _, of_lax, of_torch = row("time on the CPU above")
    assert [of_lax.split()[0], of_torch.split()[0]] == pair(means["all"])
    assert f"all {len(RESULTS['layers'])} ops" in README


def test_what_unchanged_programs_gain_is_the_committed_results():
    programs = json.loads((ROOT / "benchmarks" / "results" / "programs.json").read_text())["programs"]
    gains = {}
    for entry in programs:
        gains.setdefault(entry["package"], []).append(entry["seconds"]["lax"] / entry["seconds"]["ours"])
    every = [gain for package in gains.values() for gain in package]
    assert min(every) >= 1
    sentence = f"Of {len(every)} programs, mostly gradients, none is slower than with"
    assert sentence in README and f"{summary.geometric_mean(every):.1f} times as fast" in README
    head, figures = re.search(r"\n(\| dm-pix .*)\n\|[-:|]+\n(\|.*)\n", README).groups()
    packages = [name.strip(" `").replace("jax.scipy.signal", "jax") for name in head.strip("|").split("|")]
    assert set(packages) == set(gains)
    for name, figure in zip(packages, figures.strip("|").split("|"), strict=True):
        mean = summary.geometric_mean(gains[name])
        assert figure.strip() == (f"{mean:.1f}"), name


def test_machine_and_command_are_those_of_the_committed_results():
    versions, settings = RESULTS["versions"], RESULTS["settings"]
    for said in (
        f"on {RESULTS['date']} on",
        f"an {RESULTS['machine']['processor']} (AVX-512), {settings['threads']} threads",
        f"`{ARITHMETICS[settings['arithmetics'][0]][0]}`",
        f"batches of at most {settings['batch']}",
        f"jax {versions['jax']}, PyTorch {versions['torch'].partition('+')[0]}",
        f"`{' '.join(RESULTS['command'])}`",
    ):
        assert said in README
    assert RESULTS["machine"]["cores"] == 2 and "avx512f" in RESULTS["machine"]["vectors"]


def test_the_chart_s_description_has_its_extremes():
    (alt,) = re.findall(r'<img src="docs/performance/chart-light.svg" alt="([^"]*)"', README)
    rows = chart.rows(RESULTS)
    for peer, name in (("lax", "jax.lax takes"), ("torch", "PyTorch")):
        ratios = [row.ratios[peer] for row in rows]
        assert f"{name} {min(ratios):.2f} to {max(ratios):.3g} times" in alt
    assert len(rows) == 9


def test_its_pictures_are_there():
    files = re.findall(r'\s(?:src|srcset)="([^"]+)"', README)
    assert len(files) == 2
    assert all((ROOT / file).is_file() for file in files)


def test_it_fits_a_front_page():
    assert len(README.splitlines()) <= 150


def test_tests_of_what_is_supported_exist():
    below = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(test_\w+\.py)`", SUPPORT))
    assert len(named) > 25
    assert named <= below
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert all(f"def {name}(" in sources for name in re.findall(r"`(test_\w+)`", SUPPORT))
