"""Write the page of a report: README.md, and the same as one HTML file that needs no other."""

import base64
import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

from ghostexp.runs.text_files import write_atomically

HTML = "report.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { border: 1px solid #ccc; padding: 0.25rem 0.6rem; }
th { background: #f3f3f3; }
pre { background: #f3f3f3; padding: 0.8rem; overflow-x: auto; }
img { max-width: 100%; }
"""


def write_page(folder: Path, text: str) -> None:
    """Write a page of Markdown, and its HTML with the pictures of the folder inside."""
    write_atomically(folder / "README.md", text)
    write_atomically(folder / HTML, to_html(text, folder))


def to_html(text: str, folder: Path) -> str:
    """Convert Markdown to one HTML document; pictures that lie in the folder are embedded."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r'(<img src=")([^":]+\.png)(")', lambda found: _embedded(found, folder), body)
    title = html.escape(text.partition("\n")[0].lstrip("# "))
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>{title}</title>'
    start = f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n<style>{STYLE}</style>\n</head>\n'
    return f"{start}<body>\n{body}</body>\n</html>\n"


def _embedded(found: re.Match[str], folder: Path) -> str:
    path = folder / html.unescape(found[2])
    if not path.is_file():
        return found[0]
    data = base64.b64encode(path.read_bytes()).decode()
    return f"{found[1]}data:image/png;base64,{data}{found[3]}"
