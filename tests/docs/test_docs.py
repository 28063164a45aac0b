"""Tests run or read every code block of the documentation, and check that its links and commands exist.

tests/README.md describes the forms of blocks. The blocks of a page run in one test, because each needs those
before it.
"""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import page_commands
import pytest
import run_page
from page_blocks import PAGES, ROOT, blocks, code_spans, links
from page_checks import text_of, wrong_block, wrong_commands, wrong_link

import jax_convgrad


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    wrong = [(line, wrong_link(page, target)) for line, target in links(text_of(page))]
    assert [f"{page}:{line}: {what}" for line, what in wrong if what] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_read(page):
    wrong = [(block.line, wrong_block(page, block)) for block in blocks(text_of(page))]
    assert [f"{page}:{line}: {what}" for line, what in wrong if what] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_are_there(page):
    spans = [
        (line, text) for line, text in code_spans(text_of(page)) if text.startswith(page_commands.STARTS)
    ]
    wrong = [(line, wrong_commands(text)) for line, text in spans]
    assert [f"{page}:{line}: {what}" for line, what in wrong if what] == []


def run(page, found, folder):
    """Runs the blocks in ``folder``, with this Python and without the tests' settings of JAX."""
    environment = {
        name: value for name, value in os.environ.items() if not re.match("XLA_|JAX_(?!CONVGRAD_)", name)
    }
    environment.pop("PYTHONPATH", None)
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MPLBACKEND": "agg",
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        [sys.executable, "-P", ROOT / "tests" / "support" / "run_page.py"],
        input=json.dumps([page, [(block.language, block.line, block.code) for block in found]]),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )


@pytest.fixture
def clone(tmp_path):
    """A folder like the repository without the package's sources, which would hide the installed package."""
    for path in ROOT.iterdir():
        if path.name not in ("jax_convgrad", ".git"):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def runnable(page):
    return [b for b in blocks(text_of(page)) if b.language in run_page.RUNNERS and not b.title]


RUN_PAGES = [
    pytest.param(page, id=page + ("-emulated" if any("emulated" in b.code for b in runnable(page)) else ""))
    for page in PAGES
    if runnable(page)
]


@pytest.mark.parametrize("page", RUN_PAGES)
def test_blocks_run(page, clone):
    ran = run(page, runnable(page), clone)
    if ran.returncode != 0:
        pytest.fail(f"{ran.stdout}{ran.stderr}", pytrace=False)


REFERENCE = [
    identifier
    for page in PAGES
    if page.startswith("docs/api/")
    for identifier in re.findall(r"^::: (\S+)", text_of(page), re.MULTILINE)
]


def named(identifier):
    module, _, name = identifier.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_reference_has_every_public_function():
    by_name = {identifier.rpartition(".")[2]: identifier for identifier in REFERENCE}
    assert len(by_name) == len(REFERENCE)
    for name in jax_convgrad.__all__:
        assert named(by_name[name]) is getattr(jax_convgrad, name)


def description(identifier):
    """The docstring, which the site shows, without sections such as the arguments."""
    sections = r"^(?:Args|Attributes|Raises|Returns|Yields):$"
    return re.split(sections, inspect.getdoc(named(identifier)), maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("identifier", REFERENCE)
def test_examples_in_docstrings_run(identifier, clone):
    """Each docstring's examples run separately, in the forms of a page's blocks."""
    found = blocks(description(identifier))
    wrong = [wrong_block(identifier, block) for block in found]
    assert [what for what in wrong if what] == []
    if found:
        ran = run(identifier, found, clone)
        assert ran.returncode == 0, ran.stderr


def test_what_may_differ_is_loosened_and_must_be_there():
    page = "<!-- may differ:\n\\d+(?= s)\n-->\n```text\ntook 12 s, 3 m\n```\n"
    (block,) = blocks(page)
    assert block.code == "took ... s, 3 m\n"
    with pytest.raises(ValueError, match="nothing in the block may differ"):
        blocks(page.replace("12 s", "12 m"))


# The checks above have to find these mistakes, otherwise the pages could contain them.
BROKEN = {
    "```python\nx = 1\n```\n\n```python\nassert x == 2\n```": r":6: python block",
    "```python\nimport sys\nsys.exit(0)\n```": r":3: python block",
    "```pycon\n>>> 1 + 1\n3\n```": r":2: pycon block: (.|\n)*Got:\n    2",
    "```console\n$ echo a; echo b\na\n```": r"should print\na\n\nbut prints\na\nb\n",
    "```console\n$ echo a\n$ false\n```": r"should print\n\nbut prints\na\n",
    "```console\n$ false\n```": r"ends with status 1",
    "```console\necho a\n```": r"does not begin with",
    "```python\nimport jax_convgrad.no_such_module\n```": r":2: python block:(.|\n)*ModuleNotFoundError",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_wrong_block_is_found_where_it_is(text, clone):
    ran = run("page.md", blocks(text), clone)
    assert ran.returncode != 0
    assert re.search(BROKEN[text], ran.stderr), ran.stderr
    assert ran.stderr.startswith("page.md:")


def test_right_blocks_run(clone):
    text = """
```python
x = 2
```

1. in a list

    ```pycon
    >>> print(x, "and", id(x))
    2 and ...
    >>> y = x + 1
    ```

```console
$ echo one \\
> two; echo; echo "$(basename "$(command -v python)")"
one two

python
$ for i in 1 2 3; do echo $i; done
1
...
$ test -e examples/train_cnn.py
```

```python
assert (x, y) == (2, 3)
import jax.numpy as jnp
assert jnp.arange(3.0).dtype == "float32"  # the reader's JAX, not the tests'
```
"""
    ran = run("page.md", blocks(text), clone)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "text, problem",
    [
        ("```\nx\n```", "without a language"),
        ("    x = 1", "without a language"),
        ("```rust\nx\n```", "a block rust"),
        ("```text\nx\n```", "a block text"),
        ("```sh\nmake trane\n```", "no target trane"),
        ("```sh\nmake train EXAMPLE_FLAG=3\n```", "no variable EXAMPLE_FLAG"),
        ("```sh\nX=1 make test && make trane  # comment\n```", "no target trane"),
        ("```sh\npip install '.[examples,exampels]'\n```", "no extra exampels"),
        ("```sh\npip install jax_convgard\n```", "neither this package"),
        (
            "```sh\npip install . --config-settings cmake.define.CONVGRAD_CDUA=ON\n```",
            "CONVGRAD_CDUA",
        ),
        ("```sh\npython examples/train_cmm.py\n```", "no script"),
        ("```sh\npython examples/train_cnn.py --epoxs=3\n```", "no option --epoxs"),
        ("```sh\npytest tests/test_gradient.py -x\n```", "tests/test_gradient.py is not there"),
        ("```sh\npython -m jax_convgard plan\n```", "no module"),
        ("```sh\npython -m jax_convgrad plam\n```", "no command plam"),
        ("```sh\nnvdia-smi\n```", "no program"),
        ("```toml\nx = \n```", "Invalid value"),
        ('```cpp title="cuda_src/no.cu"\nint x;\n```', "no file cuda_src/no.cu"),
        ('```cpp title="cuda_src/plan.h"\nnamespace {\n\nnamespace {\n```', "does not have these lines"),
    ],
)
def test_a_wrong_block_that_is_not_run_is_found(text, problem):
    (block,) = blocks(text)
    assert problem in wrong_block("page.md", block)


def test_excerpts_may_be_indented_less_and_leave_lines_out():
    title = 'title="cuda_src/reference/sums.cu"'
    right = "const Coord i = input_coord(p.axis, at / p.in_channels);\n// ...\nLongSum<Sum<Stored>> dx_nic;\n"
    (block,) = blocks(f"```cpp {title}\n{right}```")
    assert wrong_block("page.md", block) is None
    backwards = "\n".join(reversed(right.strip().split("\n")))
    (block,) = blocks(f"```cpp {title}\n{backwards}\n```")
    assert "does not have these lines" in wrong_block("page.md", block)


@pytest.mark.parametrize(
    "target, problem",
    [
        ("../no.md", "not there"),
        ("../README.md#promisses", "no heading #promisses"),
        ("#the-relation", None),
        ("derivation.md#one-dimension-one-channel", None),
        ("../cuda_src", None),
    ],
)
def test_wrong_links_are_found(target, problem):
    found = wrong_link("docs/derivation.md", target)
    assert found is None if problem is None else problem in found
