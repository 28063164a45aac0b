"""Converts formulas to MathML when the site is built, so that no script draws them and nothing is fetched.

pymdownx.arithmatex finds ``$...$`` and ``$$...$$`` in a page; math-core converts the formulas. Existing
plugins do not fit: l2m4m loses escaped letters (the underscore of ``pad_lo``) and accepts unknown commands,
mkdocs-katex-ssr needs Node.js, and markdown-katex-rs reads other delimiters than GitHub and fetches styles.
"""

import html
import re

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError

FORMULA = re.compile(
    r'<span class="arithmatex">\\\((?P<inline>.*?)\\\)</span>'
    r'|<div class="arithmatex">\s*\\\[(?P<block>.*?)\\\]\s*</div>',
    re.DOTALL,
)
# Words are text: browsers would space them like the letters of a product.
WORD = re.compile(r"\\mathit\{(?=[^{}]{2})")
CONVERTER = LatexToMathML(fancy_error=False)


def on_page_content(content, page, **_):
    """Replaces a page's formulas by MathML."""

    def replace(match):
        tex = html.unescape(match["inline"] or match["block"]).strip()
        tex = WORD.sub(r"\\textit{", tex)
        try:
            mathml = CONVERTER.convert_with_local_state(tex, displaystyle=match["block"] is not None)
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: {error} in the formula {tex}") from error
        return mathml if match["inline"] else f'<div class="formula">{mathml}</div>'

    content = FORMULA.sub(replace, content)
    if 'class="arithmatex"' in content:
        raise PluginError(f"{page.file.src_uri}: a formula has a form that {__file__} does not support")
    return content
