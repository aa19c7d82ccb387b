"""Pages for people: self-contained HTML with the pictures inside, nothing loaded from anywhere."""

import base64
import html
from collections.abc import Sequence

_STYLE = (
    "body{margin:0;background:#f4f6f7;color:#2c3e50;font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}"
    "main{max-width:980px;margin:24px auto;padding:28px 36px;background:#fff;border-radius:8px;"
    "box-shadow:0 1px 4px #0002}h1{margin:0;font-size:24px}h2{font-size:17px;margin:28px 0 8px}"
    ".verdict{font-size:17px;margin:6px 0}"
    ".cards{display:grid;grid-template-columns:repeat(2,1fr);gap:12px;margin:18px 0}"
    ".card{border-left:5px solid #95a5a6;background:#f8f9f9;padding:10px 14px;border-radius:4px;overflow-wrap:anywhere}"
    ".card h2{margin:0;font-size:13px;text-transform:uppercase;letter-spacing:.04em;color:#7f8c8d}"
    ".card p{margin:2px 0 0}"
    ".card.good{border-color:#27ae60}.card.bad{border-color:#c0392b}"
    "img{max-width:100%;margin:10px 0}table{border-collapse:collapse;width:100%;font-size:14px}"
    "th{text-align:left;color:#7f8c8d;font-weight:600;border-bottom:1px solid #d5d8dc;padding:4px 8px}"
    "td{border-bottom:1px solid #eef0f1;padding:4px 8px}.n{text-align:right;font-variant-numeric:tabular-nums}"
    "tr.bad td{background:#fdf2f0}.small{font-size:13px;color:#7f8c8d}code{font-size:13px}"
)


def document(title: str, verdict: str, *parts: str) -> str:
    """A whole page; `parts` are HTML, title and verdict are text."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><main><h1>{html.escape(title)}</h1>"
        f'<p class="verdict">{html.escape(verdict)}</p>{"".join(parts)}</main></html>\n'
    )


def paragraph(text: str, small: bool = False) -> str:
    """A paragraph of plain text."""
    return f'<p class="small">{html.escape(text)}</p>' if small else f"<p>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """The heading of a part."""
    return f"<h2>{html.escape(text)}</h2>"


def cards(items: Sequence[tuple[str, str, str]]) -> str:
    """What a reader wants first, as (question, answer, good, bad or unknown)."""
    shown = "".join(
        f'<div class="card {state}"><h2>{html.escape(question)}</h2><p>{html.escape(answer)}</p></div>'
        for question, answer, state in items
    )
    return f'<div class="cards">{shown}</div>'


def image(png: bytes, title: str) -> str:
    """A picture inside the page."""
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], bad: Sequence[bool] | None = None) -> str:
    """A table of texts; columns after the first that begin with a number or a sign are set to the right."""
    numeric = [all(_is_number(row[at]) for row in rows) for at in range(len(columns))]
    marks = [' class="n"' if number else "" for number in numeric]
    head = "".join(f"<th{mark}>{html.escape(name)}" for name, mark in zip(columns, marks, strict=True))
    body = "".join(
        f"<tr{' class=bad' if bad is not None and bad[number] else ''}>"
        + "".join(f"<td{mark}>{html.escape(value)}</td>" for value, mark in zip(row, marks, strict=True))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</thead><tbody>{body}</tbody></table>"


def _is_number(text: str) -> bool:
    bare = text.strip("+-−–% ×").replace(",", "").replace(".", "")
    return not bare or bare.isdigit()
