"""``import jax_convgrad`` imports nothing else, and registers the kernels after JAX is imported.

A public name is imported when it is first used.
"""

import ast
import pickle
import pkgutil
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import jax_convgrad
from jax_convgrad import public_names

PACKAGE = Path(jax_convgrad.__file__).parent
SUBMODULES = [
    module.name.removeprefix("jax_convgrad.")
    for module in pkgutil.walk_packages(jax_convgrad.__path__, "jax_convgrad.")
    if not module.name.endswith(".__main__") and not module.name.startswith("jax_convgrad._cuda")
]


def run(program):
    """Runs a program in a new interpreter and returns its output."""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_alone_loads_neither_jax_nor_numpy_nor_the_kernels():
    loaded = run("import sys, jax_convgrad; print(*sys.modules)").split()
    assert "jax_convgrad" in loaded
    assert not {"jax", "jaxlib", "numpy", "jax_convgrad._cpu", "jax_convgrad.primitives.ffi"} & set(loaded)


REGISTERED = (
    "import sys; jax = sys.modules['jax']; "
    "print('jax_convgrad.primitives.targets' in sys.modules, 'jax_convgrad.primitives.ffi' in sys.modules, "
    "type(jax.__spec__.loader).__name__, len(sys.meta_path))"
)


@pytest.mark.parametrize(
    "imports",
    [
        "import jax_convgrad; import jax",
        "import jax; import jax_convgrad",
        "import jax_convgrad; import jax.numpy",
        "import jax_convgrad; from importlib.util import find_spec; find_spec('jax'); import jax",
        "import jax_convgrad, importlib; importlib.import_module('jax')",
    ],
)
def test_kernels_are_registered_once_there_is_jax(imports):
    """The kernels are registered and nothing else is imported, whichever package is imported first."""
    before = run("import sys, jax; print(len(sys.meta_path))").strip()
    assert run(f"{imports}; {REGISTERED}").split() == ["True", "False", "SourceFileLoader", before]


def test_kernels_are_registered_where_another_thread_is_importing_jax():
    program = (
        "import sys, threading, time\n"
        "thread = threading.Thread(target=__import__, args=('jax',))\n"
        "thread.start()\n"
        "while 'jax' not in sys.modules:\n    time.sleep(1e-4)\n"
        "import jax_convgrad\n"
        "thread.join()\n"
        f"{REGISTERED}"
    )
    assert run(program).split()[:3] == ["True", "False", "SourceFileLoader"]


def test_kernels_are_registered_where_jax_s_import_imports_this():
    """A module that JAX imports may import this package; the first import after JAX registers the kernels."""
    program = (
        "import sys\n"
        "class Early:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'jax.version':\n"
        "            sys.meta_path.remove(self)\n"
        "            import jax_convgrad\n"
        "sys.meta_path.insert(0, Early())\n"
        "import jax, this\n"
        f"{REGISTERED}"
    )
    assert run(program).split()[-4:-1] == ["True", "False", "SourceFileLoader"]


def test_kernels_are_registered_where_jax_fails_to_be_imported_at_first():
    program = (
        "import jax_convgrad, sys\n"
        "sys.modules['jaxlib'] = None\n"
        "try:\n    import jax\nexcept ImportError as error:\n    print('no jax')\n"
        "del sys.modules['jaxlib']\n"
        "for name in [name for name in sys.modules if name.startswith('jax.')]:\n    del sys.modules[name]\n"
        "import jax\n"
        "print('jax_convgrad.primitives.targets' in sys.modules, jax_convgrad.conv.__name__)"
    )
    assert run(program).split() == ["no", "jax", "True", "conv"]


def test_the_doctor_s_modules_load_no_jax_and_no_numpy():
    loaded = run("import sys, jax_convgrad.instruments.doctor_command; print(*sys.modules)").split()
    assert not {"jax", "jaxlib", "numpy", "jax_convgrad._cpu", "jax_convgrad.primitives.ffi"} & set(loaded)


def test_every_public_name_is_the_one_that_public_names_imports():
    imported = {name for name in vars(public_names) if not name.startswith("_")}
    assert imported == set(jax_convgrad.__all__)
    for name in jax_convgrad.__all__:
        assert getattr(jax_convgrad, name) is getattr(public_names, name)


def test_no_module_has_the_name_of_a_public_function():
    """The import of such a module would replace the function."""
    assert not set(SUBMODULES) & set(jax_convgrad.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'jax_convgrad' has no attribute 'convolve'"):
        _ = jax_convgrad.convolve
    with pytest.raises(ImportError, match="convolve"):
        exec("from jax_convgrad import convolve")


def test_star_dir_and_help_know_the_names():
    program = "from jax_convgrad import *; print(conv.__module__, max_pool.__module__)"
    assert run(program).split() == ["jax_convgrad.layers.convolution", "jax_convgrad.layers.pooling"]
    for used in ("", "jax_convgrad.conv; "):  # before and after the names are imported
        offered = set(run(f"import jax_convgrad; {used}print(*dir(jax_convgrad))").split())
        assert {name for name in offered if not name.startswith("__")} == set(jax_convgrad.__all__)
        assert {"__version__", "__all__", "__doc__"} <= offered
    text = pydoc.plain(pydoc.render_doc(jax_convgrad))
    for name in jax_convgrad.__all__:
        assert f"{name}(" in text


def test_a_function_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(jax_convgrad.conv)) is jax_convgrad.conv


def test_any_module_may_come_first():
    """No module relies on imports by another module, and no import is circular."""
    program = (
        "import importlib, os, sys, jax\n"
        "def imports(name):\n"
        "    child = os.fork()\n"  # a process for each module, with one common import of jax
        "    if child:\n        return os.waitpid(child, 0)[1] == 0\n"
        "    try:\n        importlib.import_module('jax_convgrad.' + name)\n        os._exit(0)\n"
        "    except BaseException as error:\n        print(name, error, file=sys.stderr, flush=True)\n"
        "    os._exit(1)\n"
        f"sys.exit(not all([imports(name) for name in {SUBMODULES}]))"
    )
    assert {"gradients", "layers.convolution", "primitives.ffi", "replace.installation"} <= set(SUBMODULES)
    run(program)


FLOORS = ("table", "geometry", "primitives", "gradients", "layers", "replace", "instruments")


def test_modules_import_from_their_own_floor_and_those_below():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        floor = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        above = FLOORS[FLOORS.index(floor) + 1 :] if floor in FLOORS else ()
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            ours = [name for name in names if name.startswith("jax_convgrad.")]
            found += [(path.name, name) for name in ours if name.split(".")[1] in above]
    assert found == []


def imports_of(folder, prefix=""):
    """Maps each module below a folder to the modules of that folder that it imports, anywhere in its code."""
    modules = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        name = prefix + ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name.rstrip(".")] = ast.parse(path.read_text())
    found = {}
    for module, tree in modules.items():
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found[module] = sorted((names & modules.keys()) - {module})
    return found


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [(PACKAGE, "jax_convgrad."), (Path(__file__).parents[2] / "benchmarks", "")],
    ids=["package", "benchmarks"],
)
def test_no_import_goes_in_a_circle(folder, prefix):
    """No import is circular, not even for types: code that two modules share belongs in a third one."""
    imports = imports_of(folder, prefix)
    assert sum(map(len, imports.values())) > 20
    # The import of any module runs the package's __init__.py, which looks up its names later.
    imports.pop("jax_convgrad", None)
    done = set()

    def walk(module, way):
        assert module not in way, " -> ".join([*way, module])
        if module not in done and module in imports:
            for name in imports[module]:
                walk(name, (*way, module))
            done.add(module)

    for module in imports:
        walk(module, ())


def test_vmap_is_there_whichever_module_is_imported():
    """The module that defines a primitive also registers its vmap rule."""
    program = (
        "import jax, numpy as np\n"
        "from jax_convgrad.layers.convolution import conv\n"
        "x, w = np.ones((3, 1, 5, 2), np.float32), np.ones((2, 2, 4), np.float32)\n"
        "dx = jax.vmap(jax.grad(lambda x: conv(x, w, activation='relu').sum()))(x)\n"
        "print(*map(int, dx[2, 0, :, 0]))"
    )
    assert run(program).split() == ["4", "8", "8", "8", "4"]


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            raise ModuleNotFoundError("No module named 'jax'", name="jax")
sys.meta_path.insert(0, Blocker())
"""


def test_a_name_that_cannot_be_imported_says_why_and_whom_to_ask():
    program = BLOCKED + (
        "import jax_convgrad\n"
        "try:\n    from jax_convgrad import conv\n"
        "except ModuleNotFoundError as error:\n    print(error, *error.__notes__)"
    )
    assert run(program).strip() == (
        "No module named 'jax' `python -m jax_convgrad doctor` reports what is wrong and how to fix it."
    )


def test_a_jax_without_what_is_used_of_it_is_an_import_error():
    """`from ... import` would hide an AttributeError, because it means a missing name there."""
    program = (
        "import jax\ndel jax.make_user_context\n"
        "try:\n    from jax_convgrad import conv\n"
        "except ImportError as error:\n    print(error)"
    )
    assert "with this version of JAX (module 'jax' has no attribute 'make_user_context')" in run(program)
