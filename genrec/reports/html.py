"""Build self-contained HTML pages without scripts, and escape the text in them."""

from __future__ import annotations

import html

from genrec.text import one_line

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; overflow-wrap: anywhere; }
"""


def escape_line(text: str) -> str:
    """Escape a text for HTML and join its lines."""
    return html.escape(one_line(text))


def make_page(title: str, body: str, style: str) -> str:
    """Build a complete HTML page, which may load nothing but the images embedded in it.

    Args:
        title: the title of the page as plain text.
        body: the content as HTML.
        style: CSS rules to add to the rules that all pages share.
    """
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape_line(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
