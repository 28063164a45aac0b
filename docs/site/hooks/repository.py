"""Which page of the site each file and folder of the repository has, and what is on it."""

import re
from pathlib import PurePosixPath

FOLDERS = (
    ".ci",
    "benchmarks",
    "common_src",
    "cpu_src",
    "cuda_src",
    "examples",
    "ffi_src",
    "findings",
    "jax_convgrad",
    "tests",
)
# What Pygments calls the language of a file of this suffix, or of this name where it has none.
LANGUAGES = {
    ".cc": "cpp",
    ".cmake": "cmake",
    ".cu": "cuda",
    ".cuh": "cuda",
    ".h": "cpp",
    ".json": "json",
    ".md": "markdown",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".yml": "yaml",
    ".clang-format": "yaml",
    "CMakeLists.txt": "cmake",
    "LICENSE": "text",
    "Makefile": "make",
    "run": "bash",
}
DOCS = PurePosixPath("docs")
FENCE = "`" * 10


def language(path):
    """What Pygments calls the file's language, or None where it is no source."""
    return LANGUAGES.get(path.name) or LANGUAGES.get(path.suffix)


class Repository:
    """The source files: a page each below ``source/``, a folder's page being its README.md.

    Of docs/ these are scripts and the site's configuration alone, since its pages are the site's own.

    Attributes:
      files: their paths in the repository, in order.
      folders: those that hold any of them, the repository itself (".") included.
      called: file or folder by what a text may call it: its path, or how that ends where only one does.
      functions: by a function's public name, what the pages of docs/api call it.
    """

    def __init__(self, root):
        """Looks through the folder ``root``."""
        self.root = root
        found = [*root.iterdir(), *(root / "docs").glob("*.py"), *(root / "docs" / "site").glob("*.yml")]
        found += [path for folder in FOLDERS for path in (root / folder).rglob("*")]
        relative = (PurePosixPath(path.relative_to(root)) for path in found if path.is_file())
        self.files = sorted(path for path in relative if language(path) and "__pycache__" not in path.parts)
        self.folders = {folder for path in self.files for folder in path.parents} - {DOCS}

        by_end = {}
        for path in self.files:
            for parts in range(1, len(path.parts)):
                by_end.setdefault("/".join(path.parts[-parts:]), []).append(path)
        self.called = {end: paths[0] for end, paths in by_end.items() if len(paths) == 1}
        self.called |= {f"{folder}/": folder for folder in self.folders if folder.parts}
        self.called |= {str(path): path for path in self.files}

        self.functions = {}
        for page in (root / "docs" / "api").glob("*.md"):
            for identifier in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
                self.functions[identifier.rpartition(".")[2]] = identifier

    def page(self, path):
        """Where the page of a path in the repository is among the site's sources; None where it has none."""
        if path in self.files:
            return str("source" / (path if path.suffix == ".md" else path.with_name(f"{path.name}.md")))
        if path in self.folders:
            return str("source" / path / "README.md")
        if path.is_relative_to(DOCS):
            inside = path.relative_to(DOCS)
            return str(inside if inside.suffix else inside / "README.md")
        return None

    def written_in(self, page):
        """The folder of the repository in which the text of a page stands."""
        path = PurePosixPath(page)
        return path.relative_to("source").parent if path.parts[0] == "source" else DOCS / path.parent

    def pages(self):
        """Where each page below source/ is among the site's sources, and its text."""
        for folder in sorted(self.folders):
            yield self.page(folder), self._folder(folder)
        for path in self.files:
            if path.suffix != ".md":
                yield self.page(path), self._code(path)
            elif path.name != "README.md":
                yield self.page(path), (self.root / path).read_text()

    def _folder(self, folder):
        readme = folder / "README.md"
        text = (self.root / readme).read_text() if readme in self.files else f"# {folder}/"
        folders = [f"{sub.name}/" for sub in sorted(self.folders) if sub.parts and sub.parent == folder]
        files = [path.name for path in self.files if path.parent == folder and path != readme]
        names = ["../"] * bool(folder.parts) + folders + files
        links = ", ".join(f"[{name}]({name})" for name in names)
        return f"{text.rstrip()}\n\n## Files in this folder\n\n{links}\n"

    def _code(self, path):
        head = f"---\ntitle: {path.name}\nsearch: {{exclude: true}}\nhide: [toc]\n---\n\n# `{path}`\n\n"
        above = f"In [{path.parent}/](.)" if path.parent.parts else "In [the repository](.)"
        text = (self.root / path).read_text().rstrip()
        return f'{head}{above}\n\n{FENCE} {{.{language(path)} linenums="1"}}\n{text}\n{FENCE}\n'
