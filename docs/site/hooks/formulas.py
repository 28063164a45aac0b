"""Formulas become MathML when the site is built: no script draws them, and nothing is fetched.

pymdownx.arithmatex finds ``$...$`` and ``$$...$$`` in a page, math-core converts what is between
them. Plugins for the same were tried. l2m4m loses escaped letters (the underscore of ``pad_lo``) and lets
unknown commands pass; mkdocs-katex-ssr needs Node.js; markdown-katex-rs reads other delimiters than GitHub
and fetches its style.
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
# Words are text: as letters of a product browsers would space them.
WORD = re.compile(r"\\mathit\{(?=[^{}]{2})")
CONVERTER = LatexToMathML(fancy_error=False)


def on_page_content(content, page, **_):
    """Puts MathML in the place of a page's formulas."""

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
        raise PluginError(f"{page.file.src_uri}: a formula in a form that {__file__} does not know")
    return content
