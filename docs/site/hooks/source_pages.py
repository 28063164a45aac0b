"""Adds the repository's files as pages of the site, so that readers can open the files that a page names.

In the repository, pages link to files outside of docs/ by relative paths. This hook changes these links to
the pages below ``source/``. It leaves a link to a missing file unchanged, and MkDocs stops the build. Code
spans and titles of excerpts that name a file, and code spans that name a public function, become links.
"""

import posixpath
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from xml.etree import ElementTree

from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.structure.files import File, InclusionLevel
from mkdocs.utils import get_relative_url
from repository import Repository

# A name, or a call of it with any arguments.
FUNCTION = re.compile(r"(?:jax_convgrad\.)?(\w+)(?:\(.*\))?")
# Raw HTML, which Markdown does not change: a picture for light pages and one for dark ones.
PICTURE = re.compile(r"<picture>.*?</picture>", re.DOTALL)
PICTURE_FILE = re.compile(r'(?<=\ssrc=")[^"]+|(?<=\ssrcset=")[^"]+')
NEVER_LINKED = {"a", "pre", "h1", "h2", "h3", "h4", "h5", "h6"}


class SourceLinks(Treeprocessor):
    """Changes the links of one page after another.

    Attributes:
      repository: the repository that the pages belong to.
      page: the path of the next page among the site's sources.
    """

    repository: Repository
    page: str

    def run(self, root):
        """Changes the links in a page's elements."""
        for tag, attribute in (("a", "href"), ("img", "src")):
            for element in root.iter(tag):
                target = self.on_site(urlsplit(element.get(attribute, "")))
                if target is not None:
                    element.set(attribute, target)
        self._link_code(root)

    def on_site(self, target):
        """The link from the page to a target in the repository; None if the target is elsewhere."""
        if not target.path or target.scheme or target.netloc:
            return None
        folder = self.repository.written_in(self.page)
        page = self.repository.page(PurePosixPath(posixpath.normpath(folder / target.path)))
        if page is None:
            return None
        return self._href(page) + (f"#{target.fragment}" if target.fragment else "")

    def _href(self, page):
        return posixpath.relpath(page, posixpath.dirname(self.page) or ".")

    def _link_code(self, element):
        for position, child in enumerate(element):
            if child.tag == "code" and len(child) == 0:
                link = self._link_to(child.text or "")
                if link is not None:
                    link.tail, child.tail = child.tail, None
                    link.append(child)
                    element[position] = link
            elif child.tag not in NEVER_LINKED:
                self._link_code(child)

    def _link_to(self, text):
        path = self.repository.called.get(text)
        if path is not None:
            return ElementTree.Element("a", href=self._href(self.repository.page(path)))
        name = FUNCTION.fullmatch(text)
        function = self.repository.functions.get(name[1]) if name else None
        return None if function is None else ElementTree.Element("autoref", identifier=function)


class SourceLinksExtension(Extension):
    """Runs SourceLinks after inline markup (priority 20) and before MkDocs' check of links (0)."""

    def extendMarkdown(self, md):  # noqa: N802
        md.treeprocessors.register(SourceLinks(md), "source_links", 10)


def on_config(config):
    """Reads the repository, and lets Markdown change links."""
    SourceLinks.repository = Repository(Path(config.docs_dir).parent)
    config.markdown_extensions.append(SourceLinksExtension())


def on_files(files, config):
    """Adds the pages below source/; the navigation has the first one."""
    repository = SourceLinks.repository
    front = repository.page(PurePosixPath())
    for page, text in repository.pages():
        inclusion = InclusionLevel.INCLUDED if page == front else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, page, content=text, inclusion=inclusion))


def on_page_markdown(markdown, page, **_):
    """Stores the next page's path, and changes the paths in its ``<picture>``."""
    SourceLinks.page = page.file.src_uri
    links = SourceLinks()

    def turned(picture):
        return PICTURE_FILE.sub(lambda file: links.on_site(urlsplit(file[0])) or file[0], picture[0])

    return PICTURE.sub(turned, markdown)


def on_page_content(content, page, files, **_):
    """Links an excerpt's title to the file that it names."""
    repository = SourceLinks.repository

    def link(match):
        if match[0] not in repository.called:
            return match[0]
        target = files.get_file_from_path(repository.page(repository.called[match[0]]))
        return f'<a href="{get_relative_url(target.url, page.file.url)}">{match[0]}</a>'

    return re.sub(r'(?<=<span class="filename">)[^<]+(?=</span>)', link, content)
