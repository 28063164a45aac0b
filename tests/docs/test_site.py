"""The site's build of a small repository's pages, and that each kind of mistake ends it with an error."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "docs" / "site"

NAVIGATION = ["README.md", "guide.md", "api/layers.md", "source/README.md"]
HOME = r"""# Home

The [kernel](../cuda_src/kernel.cu), [its folder](../cuda_src) and `cuda_src/kernel.cu`, by `scale(x, by=3)`
of [one page](guide.md#a-sum).

```cuda title="cuda_src/kernel.cu"
int taps = 3;
```
"""
GUIDE = r"""# Guide

## A sum

Drawn by [a script](draw.py) with `draw --dry-run`, by `gemm/plan.h` or another `plan.h`.
With $\mathit{pad\_lo} < O$:

$$Y[o] = \sum_r X[o + r]\, W[r]$$
"""
SOURCES = """# Sources

[Documentation](docs/guide.md#a-sum)

<picture>
  <source media="(prefers-color-scheme: dark)" srcset="docs/plots/dark.svg">
  <img src="docs/plots/light.svg" alt="Bars">
</picture>
"""
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
LAYER = '''"""Layers."""


def scale(x: float, by: float = 2.0) -> float:
    """Stretch a number.

    Args:
      x: the number.
      by: how much.

    Returns:
      The product.
    """
    return by * x
'''


@pytest.fixture
def repository(tmp_path):
    """A folder with three pages, a package and a kernel, and the site's own configuration and hooks."""
    shutil.copytree(SITE, tmp_path / "docs" / "site", ignore=shutil.ignore_patterns("__pycache__"))
    files = {
        "docs/README.md": HOME,
        "docs/guide.md": GUIDE,
        "docs/draw.py": "print('drawn')\n",
        "docs/api/layers.md": "# Layers\n\n::: jax_convgrad.layer.scale\n",
        "jax_convgrad/__init__.py": '"""A package that cannot be imported."""\n\nimport no_such_module\n',
        "jax_convgrad/layer.py": LAYER,
        "cuda_src/kernel.cu": "int taps = 3;\n",
        "cuda_src/gemm/plan.h": "int tiles;\n",
        "cuda_src/kernels.cmake": "set(kernels 1)\n",
        "cuda_src/pool/plan.h": "int runs;\n",
        "README.md": SOURCES,
        "docs/plots/light.svg": DRAWING,
        "docs/plots/dark.svg": DRAWING,
        "docs/site/small.yml": f"INHERIT: mkdocs.yml\nnav: [{', '.join(NAVIGATION)}]\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def build(repository):
    """The finished process, whose output has the reasons if it failed."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "-f", "docs/site/small.yml"],
        cwd=repository,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_pages_lead_to_sources_and_functions(repository):
    built = build(repository)
    assert built.returncode == 0, built.stdout
    site = repository / "build" / "site"
    home = (site / "index.html").read_text()
    source = "source/cuda_src/kernel.cu.html"
    assert f'<a href="{source}">kernel</a>' in home
    assert f'<a href="{source}"><code>cuda_src/kernel.cu</code></a>' in home
    assert f'<span class="filename"><a href="{source}">cuda_src/kernel.cu</a></span>' in home
    assert '<a href="source/cuda_src/index.html">its folder</a>' in home
    assert re.search(
        r'href="api/layers.html#jax_convgrad.layer.scale"[^>]*><code>scale\(x, by=3\)</code>', home
    )

    guide = (site / "guide.html").read_text()
    assert '<a href="source/cuda_src/gemm/plan.h.html"><code>gemm/plan.h</code></a>' in guide
    assert "another <code>plan.h</code>" in guide  # not a link, because there are two

    assert re.search(r"<h1[^>]*><code>cuda_src/kernel.cu</code>", (site / source).read_text())
    assert 'href="kernel.cu.html"' in (site / "source" / "cuda_src" / "index.html").read_text()
    sources = (site / "source" / "index.html").read_text()
    assert 'href="../guide.html#a-sum"' in sources
    assert 'srcset="../plots/dark.svg"' in sources and 'src="../plots/light.svg"' in sources
    assert "how much" in (site / "api" / "layers.html").read_text()  # the source is read, not imported

    guide = (site / "guide.html").read_text()
    assert '<a href="source/docs/draw.py.html">a script</a>' in guide
    assert guide.count("<math") == 2 and guide.count('<math display="block"') == 1
    assert "arithmatex" not in guide
    assert "<mtext><i>pad_lo</i></mtext>" in guide
    cmake = (site / "source" / "cuda_src" / "kernels.cmake.html").read_text()
    assert '<span class="nb">set</span>' in cmake  # highlighted
    assert (site / "source" / "docs" / "site" / "small.yml.html").exists()
    assert not (site / "404.html").exists()  # its links begin with a slash


MISTAKES = {
    "a source that is not there": ("docs/guide.md", "[x](../cuda_src/no_kernel.cu)", "no_kernel.cu"),
    "a page that is not there": ("docs/guide.md", "[x](no_guide.md)", "no_guide.md"),
    "a heading that is not there": ("docs/guide.md", "[x](README.md#nothing)", "#nothing"),
    "a link from a source's page": ("README.md", "[x](cuda_src/no_kernel.cu)", "no_kernel.cu"),
    "a picture for dark pages that is not there": (
        "README.md",
        '<picture><source srcset="docs/plots/night.svg"></picture>',
        "night.svg leads nowhere",
    ),
    "a link in HTML": ("docs/guide.md", '<a href="no_guide.html">x</a>', "no_guide.html leads nowhere"),
    "a page outside of the navigation": ("docs/orphan.md", "# Alone", "not included in the .nav."),
    "an unknown command in a formula": ("docs/guide.md", r"$\sommes_r$", r"guide.md: .*\\sommes"),
    "a picture from elsewhere": (
        "docs/guide.md",
        "![x](https://example.org/x.png)",
        "<img> loads https://example.org",
    ),
    "a function that is not there": ("docs/api/layers.md", "\n::: jax_convgrad.layer.shrink", "layer.shrink"),
    "a parameter that is not there": (
        "jax_convgrad/layer.py",
        '\n\ndef f(x):\n    """F.\n\n    Args:\n      y: no such.\n    """\n',
        "Parameter 'y' does not appear",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_the_build(repository, mistake):
    name, text, message = MISTAKES[mistake]
    if name == "jax_convgrad/layer.py":
        (repository / "docs/api/layers.md").write_text("# Layers\n\n::: jax_convgrad.layer.f\n")
        (repository / "docs/README.md").write_text("# Home\n")
    with (repository / name).open("a") as file:
        file.write(f"\n{text}\n")
    built = build(repository)
    assert built.returncode != 0
    assert re.search(message, built.stdout), built.stdout
