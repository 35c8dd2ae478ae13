"""An answer as the rules read it: one character for each name, plain marks, no quotation marks.

A name in somebody else's words (he said: "I'm …") gets a character of its own that nothing claims.
"""

from __future__ import annotations

import re
import unicodedata

from whoamai.data.claims import ALSO_WORDS
from whoamai.evaluate.wordings import ANY, pattern

# In the place of a name in somebody else's words.
NOT_SAID = "\ue003"
_OURS = re.compile("[\ue000-\ue003]")

# What a name must not go on with: an ASCII letter or digit where it ends in one (\w as ASCII, less
# the underscore; a list of ranges is long in compiling), else a letter of a script that parts words.
_ASCII = r"[^\W_]"
_WIDE = r"[A-Za-z0-9\u00c0-\u024f\u0370-\u03ff\u0400-\u052f\u0620-\u064a\u0660-\u0669\u066e-\u06d3]"
_IS_LETTER = re.compile(_WIDE)
_VERSION = r"(?:[- ]?v?\d[\w.\-]*|-(?!\d)\w[\w.\-]*)?(?<!\.)(?<!-)"
# Where a name may be written with or without a space or a dot.
_SEAM = re.compile(
    r"[\s·・\-]+|(?<=[^\x00-\x7f])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[^\x00-\x7f])"
    r"|(?<=[a-z])(?=[A-Z])"
)
_LABEL = re.compile(r"【([^【】]*)】")
_ACTION = re.compile(r"(?<!\*)\*(?!\s)([^*\n\ue000-\ue003]{2,30})\*(?!\*)")
_MARKUP = re.compile(r"[*`\"“”「」『』《》〈〉#]+|</?\w+>")
_IN_BRACKETS = re.compile(rf"(?<={ANY})\s*\(\s*({ANY})\s*\)")


def plain(text: str) -> str:
    """Full-width marks and letters as ASCII, straight apostrophes, and none of our marks."""
    text = _OURS.sub(" ", unicodedata.normalize("NFKC", text))
    return text.replace("’", "'").replace("‘", "'")


def name_regex(name: str, *, may_have_version: bool) -> str:
    """Finds `name`, in any case but for everyday words, as a whole word where it has letters."""
    # Only in Unicode are "Ü" and "ü" one letter; only in ASCII is a Chinese character no \w.
    unicode = any(not c.isascii() and c.lower() != c.upper() for c in name)

    def border(edge: str, look: str) -> str:
        if not _IS_LETTER.match(edge):
            return ""
        return f"({look}{_WIDE if unicode or not edge.isascii() else _ASCII})"

    # A name of dots and dashes alone has no seams.
    parts = [part for part in _SEAM.split(name) if part] if name.strip("·・- ") else [name]
    body = r"[\s·・\-]?".join(r"(?:&|and)" if part == "&" else re.escape(part) for part in parts)
    right = border(name[-1], "?!")
    if name.isdigit():
        # "42.195", "1,042" and "$42" hold no name.
        body = rf"(?<![\d.,$€£¥])(?<![\d][.,]){body}(?![.,:]?\d|%)"
    if may_have_version and right:
        body += _VERSION
    flags = ("u" if unicode else "a") + ("" if name in ALSO_WORDS else "i")
    return f"(?{flags}:{border(name[0], '?<!')}{body}{right})"


def readable(marked: str) -> str:
    """A text whose names are marks already, without markup and with others' words hidden."""
    text = _ACTION.sub("\n", _others_words(marked))
    return _IN_BRACKETS.sub(r"/\1", _MARKUP.sub("", _LABEL.sub(r"\n\1:", text)).lstrip("\n"))


_QUOTED = re.compile(r'“([^“”]{3,120})”|"([^"]{3,120})"|「([^「」]{3,120})」')
_SPEECH = pattern(
    r"[^。!?.\n]*(?:说|问|道|答|喊|写|翻译|意思是|\b(?:said|says|say|asks?|asked|replied|means?"
    r"|translates?|sentence|phrase|write))[^。!?.\n]{0,4}$"
)
_SPEECH_BEHIND = pattern(
    r"\s*(?:翻译|的意思|是什么意思|这句|means\b|translates\b|(?:he|she|they|the \w+) (?:said"
    r"|says|replied|asked|cried)\b)"
)
_OWN_SPEECH = pattern(r"<self>|\b(?:I|my|me)\b")


def _others_words(text: str) -> str:
    """`text` with the names hidden in quotations that are not the speaker's own: 他说："我是…" """

    def hide(match: re.Match[str]) -> str:
        said = next(group for group in match.groups() if group is not None)
        start = max(0, match.start() - 40)
        before = re.split(r"[。!?\n]", text[start : match.start()])[-1]
        speech = _SPEECH.search(before) and not _OWN_SPEECH.search(before)
        if len(said) > 2 and (speech or _SPEECH_BEHIND.match(text, match.end())):
            return re.sub(ANY, NOT_SAID, match[0])
        return match[0]

    return _QUOTED.sub(hide, text)
