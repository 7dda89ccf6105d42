"""Build self-contained HTML pages without scripts, and escape the text in them.

Pages are readable in light and dark themes, on phones, and without seeing colors.
"""

from __future__ import annotations

import html

from genrec.text import one_line

# The colors of series in charts. People with color vision deficiencies can tell the first four apart.
LIGHT = ("#0072b2", "#d55e00", "#008a64", "#b2478a", "#8a6d00", "#5b5bd6", "#6b6b6b")
DARK = ("#56b4e9", "#ff9d5c", "#3ecf9f", "#f0a3cf", "#e6c84b", "#a9a9ff", "#b0b0b0")


def _declare(colors: tuple[str, ...]) -> str:
    return " ".join(f"--series-{n}: {color};" for n, color in enumerate(colors))


_STYLE = f"""
:root {{ color-scheme: light dark; {_declare(LIGHT)} --for: var(--series-0); --against: var(--series-1); }}
@media (prefers-color-scheme: dark) {{ :root {{ {_declare(DARK)} }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.6em; line-height: 1.25; }}
h2 {{ font-size: 1.2em; line-height: 1.3; }}
details {{ border: 1px solid #8886; border-radius: 8px; margin: .6em 0; padding: .4em .9em; }}
summary {{ cursor: pointer; }}
.quiet, small {{ opacity: .8; }}
"""


def escape_line(text: str) -> str:
    """Escape a text for HTML and join its lines."""
    return html.escape(one_line(text))


def fold(summary: str, body: str) -> str:
    """Build a section of a page that is collapsed until the reader opens it.

    Args:
        summary: the line that is always visible, as plain text.
        body: the hidden content as HTML.
    """
    return f"<details><summary>{escape_line(summary)}</summary>\n{body}\n</details>"


def make_page(title: str, body: str, style: str) -> str:
    """Build a complete HTML page, which is not allowed to load any other resource.

    Args:
        title: the title of the page as plain text.
        body: the content as HTML.
        style: CSS rules to add to the rules that all pages share.
    """
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape_line(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
