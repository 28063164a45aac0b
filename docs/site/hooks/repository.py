"""Makes the site's pages for the files and folders of the repository."""

import re
from pathlib import PurePosixPath

FOLDERS = (
    ".ci",
    ".github",
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
# Pygments' name for the language of a file with this suffix, or with this name if it has no suffix.
LANGUAGES = {
    ".cc": "cpp",
    ".cff": "yaml",
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
    """Pygments' name for the file's language, or None if the file is not a source file."""
    return LANGUAGES.get(path.name) or LANGUAGES.get(path.suffix)


class Repository:
    """The source files, each with a page below ``source/``; a folder's page is its README.md.

    In docs/ only scripts and the site's configuration are source files, since the site has its pages anyway.

    Attributes:
      files: their paths in the repository, in order.
      folders: the folders that contain any of them, including the repository itself (".").
      called: a file or folder by its name in texts: its path, or the path's end if that is unique.
      functions: by a function's public name, its name on the pages of docs/api.
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
        """The path of a repository path's page among the site's sources; None if it has no page."""
        if path in self.files:
            return str("source" / (path if path.suffix == ".md" else path.with_name(f"{path.name}.md")))
        if path in self.folders:
            return str("source" / path / "README.md")
        if path.is_relative_to(DOCS):
            inside = path.relative_to(DOCS)
            return str(inside if inside.suffix else inside / "README.md")
        return None

    def written_in(self, page):
        """The folder of the repository that contains the text of a page."""
        path = PurePosixPath(page)
        return path.relative_to("source").parent if path.parts[0] == "source" else DOCS / path.parent

    def pages(self):
        """The path of each page below source/ among the site's sources, and its text."""
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
