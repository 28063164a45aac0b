"""No line ends within an option: browsers would break ``--data`` behind its hyphens."""

import re

CODE_SPAN = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


def on_page_content(content, **_):
    """Holds the options in a page's code spans together."""
    return CODE_SPAN.sub(lambda span: OPTION.sub(r'<span class="option">\g<0></span>', span[0]), content)
