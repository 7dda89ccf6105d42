"""Parts of HTML pages that hold everything they need: the frame, and texts shown as text. No scripts."""

from __future__ import annotations

import html

from genrec.text import one_line

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; overflow-wrap: anywhere; }
"""


def escape_line(text: str) -> str:
    """Return a text of the data as one line of HTML that shows it, whatever it holds."""
    return html.escape(one_line(text))


def make_page(title: str, body: str, style: str) -> str:
    """Return a whole page, which may load nothing but its own pictures.

    Args:
        title: the title, as plain text.
        body: the content, as HTML.
        style: rules of CSS, besides those that all pages share.
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
