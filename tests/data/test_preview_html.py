from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.data.test_preview import TEXTS, preview_of, talk
from whoamai.data.preview import marks_for, visible
from whoamai.data.preview_html import html_page, write_html
from whoamai.errors import OutputError
from whoamai.messages import use_language
from whoamai.samples import Conversation, Message


class Page(HTMLParser):
    """Reads a page: open tags, tokens of the <pre>s, and every tag and attribute there is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.trained: list[str] = []
        self._classes: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)
            self._classes.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._classes.pop()

    def handle_data(self, data):
        if "pre" in self.open:
            self.text.append(data)
            if any("x" in classes.split() for classes in self._classes):
                self.trained.append(data)


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_shows_every_text_as_it_is(text):
    preview = preview_of(talk(text, f"{text}!"))
    page = Page(html_page(preview))
    marks = marks_for(preview)
    assert page.open == []
    assert "".join(page.text) == visible(preview.rows[0].text, marks.line_end)
    assert "".join(page.trained) == visible(f"{text}!<|im_end|>", marks.line_end)


def test_no_text_becomes_a_tag():
    bad = '<script>alert(1)</script><img src=x onerror="x">\'"><b>'
    written = html_page(preview_of(talk(bad, bad, source=f"{bad}:1"), talk(bad, bad)))
    page = Page(written)
    allowed = {"html", "head", "meta", "title", "style", "body", "section", "span", "pre", "p"}
    allowed |= {"h1", "h2", "table", "tr", "th", "td"}
    assert page.tags <= allowed
    assert not re.findall(rf"<(?!/?(?:{'|'.join(allowed)})\b|!DOCTYPE)", written)
    assert not re.findall(r"&(?!amp;|lt;|gt;|quot;|#x27;)", written)
    known = {
        "lang",
        "charset",
        "name",
        "content",
        "http-equiv",
        "class",
        "title",
        "data-n",
        "style",
    }
    assert page.attributes <= known


def test_the_page_needs_nothing_else():
    page = html_page(preview_of(talk("你好", "hi")))
    for part in ("http:", "https:", "url(", "@import", "<script", "<link", "src="):
        assert part not in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_the_plain_text_says():
    preview = preview_of(*[talk("你好", "😀")] * 3)
    page = html_page(preview)
    assert "As one prefix tree" in page
    assert "What rows share" in page
    assert 'data-n="4"' in page


def test_the_page_is_written_whole_and_over_nothing(tmp_path):
    preview, path = preview_of(talk("a", "b")), tmp_path / "page.html"
    write_html(preview, path)
    assert path.read_text("utf-8") == html_page(preview)
    with pytest.raises(OutputError, match="exists already"):
        write_html(preview, path)
    write_html(preview, path, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        write_html(preview, tmp_path / "no" / "page.html")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_page_without_a_row_says_why():
    preview = preview_of(Conversation((Message("user", "q"), Message("assistant", "a")), "f:1"))
    assert "f:1 has no reply to train on." in html_page(preview)


def test_the_texts_are_chinese_where_the_language_is():
    with use_language("zh"):
        assert 'lang="zh-CN"' in html_page(preview_of(talk("a", "b")))
    assert 'lang="en"' in html_page(preview_of(talk("a", "b")))


def test_the_page_never_replaces_the_data_it_shows(tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text("{}", "utf-8")
    with pytest.raises(OutputError, match="input"):
        write_html(preview_of(talk("a", "b")), data, [data], overwrite=True)
    assert data.read_text("utf-8") == "{}"
