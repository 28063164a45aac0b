"""What a reader's browser will ask for, checked on the finished site: all of it is there, none elsewhere.

MkDocs looks at the links that are written in pages. Those that themes, plugins and hooks make are looked at
here, and whatever is loaded by itself (scripts, styles, images), as the site is to be read without a network.
mkdocs-htmlproofer-plugin looks at links and images alone, not at scripts, styles or ``srcset``.
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
    """Whatever is amiss in the folder ``site``, a line each."""
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


@event_priority(-200)  # behind the plugins that write last
def on_post_build(config):
    """Takes away the page for servers, whose links begin with a slash; ends a build that is amiss."""
    (Path(config.site_dir) / "404.html").unlink(missing_ok=True)
    found = list(problems(Path(config.site_dir)))
    if found:
        raise PluginError("the finished site is not whole:\n" + "\n".join(found))
