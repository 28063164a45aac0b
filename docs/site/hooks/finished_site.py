"""Checks that the finished site has everything that a browser requests, and loads nothing from elsewhere.

MkDocs checks the links that are written in pages. This hook also checks those that themes, plugins and hooks
make, and everything that a browser loads automatically (scripts, styles, images), since readers may have no
network. mkdocs-htmlproofer-plugin checks only links and images, not scripts, styles or ``srcset``.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority

REFERENCE = re.compile(r'<(?P<tag>\w+)\b[^>]*?\s(?:href|src|srcset)="(?P<url>[^"]*)"')
IDENTIFIER = re.compile(r'\s(?:id|name)="([^"]*)"')
LOADED = {"script", "img", "iframe", "source", "link"}


def problems(site):
    """The errors in the folder ``site``, one line each."""
    pages = {path: path.read_text() for path in sorted(site.rglob("*.html"))}
    identifiers = {path: set(IDENTIFIER.findall(text)) for path, text in pages.items()}
    for path, text in pages.items():
        name = path.relative_to(site)
        for tag, url in set(REFERENCE.findall(text)):
            target = urlsplit(url)
            if target.scheme in ("data", "mailto"):
                continue
            if target.scheme or target.netloc:
                if tag in LOADED:
                    yield f"{name}: <{tag}> loads {url}"
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not file.is_file():
                yield f"{name}: {url} leads nowhere"
            elif target.fragment and unquote(target.fragment) not in identifiers.get(file, ()):
                yield f"{name}: {url} leads to no place on its page"


@event_priority(-200)  # after the plugins that write last
def on_post_build(config):
    """Removes the page for servers, whose links begin with a slash; stops the build on errors."""
    (Path(config.site_dir) / "404.html").unlink(missing_ok=True)
    found = list(problems(Path(config.site_dir)))
    if found:
        raise PluginError("the finished site has errors:\n" + "\n".join(found))
