"""Lost questions: what was a reply about oneself an answer to?

Some data files hold replies whose questions are gone. `reconstruct` reads a reply and gives the
question of questions/bank.yaml that the reply's own words speak for, or None where nothing in it
says what was asked. It is a guess, and whoever writes it into a file marks it as one.

How a reply is read (an example in brackets):

1. Case, quotes and marks are evened out; the speaker's name, jokes and code are blanked.
   ["我是小初，没有情感，所以不会感到孤独。" -> "我是  ，没有情感，所以不会感到孤独。"]
2. Every word of the bank found is a hit, the longest word at its place. The text right before and
   behind it says how the reply speaks of it, which gives it points; hits late in the reply count
   less, and words that replies mention in passing carry a low weight.
   [情感: a low weight, denied; 孤独: weight 1, denied]
3. The topic with most points gives the question, in the form that suits how the reply opens or
   speaks.  ["当然可以理解孤独" -> 你能理解孤独是什么感觉吗？, else 你会感到孤独吗？]

The bank's patterns decide nothing by chance: the same reply has the same question for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any

import yaml

from whoamai.data.claims import claimed_names

_LOOKED_AT = 2000  # characters of a reply; what it answers is said early, also in a long one

# Points of a hit by how the reply speaks of it; before `weight` and place are taken into account.
_POINTS = {"subject": 3.0, "not": 2.0, "understand": 2.0, "own": 2.0, "self": 1.5, "user": 0.4}
_OF_ITSELF = ("subject", "not", "own", "what")  # the speaker speaks of itself
_IN_PASSING = 0.5
_SAID_AT_ONCE = 80  # characters; a topic only mentioned in passing, and later than that, is none
_SUBJECT_WEIGHT = 0.4  # at least, where a reply says "至于情感嘛": then it is about that
_WEAK_WORD = 0.3
_HALF_LIFE = 200  # characters after which a hit counts half
_ENOUGH = 0.1  # points below which a topic is not what the reply is about
_CLEAR = 0.3  # points below which an opening's own topic goes first ("当然知道" alone)
_CONTEXT = 24  # characters before a word that `before` may look at
_BEHIND_OPENING = 6  # characters; "当然可以理解" and a word so near to it: that was asked about
_OPENS_WITHIN = 40  # characters; a denial of someone who never says what it is must come so early

_HAN = re.compile(r"[\u3400-\u9fff]")
_CHINESE = re.compile(r"[我你您是的了不没有会能可吗这那]")  # of a sentence, hardly of a name
_LATIN_WORD = re.compile(r"[A-Za-z]+")
_OTHER_SCRIPT = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class Reconstructed:
    """A question for a reply. `cue` is the text of the reply that decided, as it stands there."""

    question: str
    topic: str
    cue: str


@dataclass(frozen=True, slots=True)
class _Word:
    """Text to look for. `form` stands for {word} in a question; no topic: it is only skipped."""

    text: str
    form: str = ""
    topic: str = ""
    weight: float = 1.0
    in_questions_only: bool = False

    def is_at(self, text: str, start: int) -> bool:
        """Latin words only where they are whole: "art" is not in "start" or "artist"."""
        end = start + len(self.text)
        if not text.startswith(self.text, start):
            return False
        return not (_is_latin(text[end - 1]) and _is_latin(text[end : end + 1]))


@dataclass(frozen=True, slots=True)
class _Opening:
    """A way a reply may begin.

    `frame` is the form of question it answers, `alone` the topic where nothing else is said,
    `speaks`: only one who was asked about oneself begins so. The question must hold `holds`.
    """

    frame: str
    pattern: re.Pattern[str]
    alone: str | None
    speaks: bool
    holds: str


@dataclass(frozen=True, slots=True)
class _Derived:
    """A wording whose own phrase `x` is what was asked about."""

    topic: str
    pattern: re.Pattern[str]
    question: str


@dataclass(frozen=True, slots=True)
class _Bank:
    """One language of bank.yaml."""

    fold: Mapping[int, str | None]
    about_self: re.Pattern[str]
    named: re.Pattern[str]
    first_person: re.Pattern[str]
    filler: re.Pattern[str]
    before: tuple[tuple[str, re.Pattern[str]], ...]
    after: Mapping[str, re.Pattern[str]]
    openings: tuple[_Opening, ...]
    interjection: re.Pattern[str]
    refusal: re.Pattern[str]
    intro: re.Pattern[str]
    alone: str
    derived: tuple[_Derived, ...]
    no_phrase: re.Pattern[str]
    questions: Mapping[str, Mapping[str, str]]  # topic -> frame -> question, {word} unfilled
    words: Mapping[str, tuple[_Word, ...]]  # first two characters -> words, longest first
    word_starts: re.Pattern[str]  # the first characters of words, of Latin ones where a word begins


@dataclass(frozen=True, slots=True)
class _Hit:
    word: _Word
    start: int
    frame: str | None  # a key of `before`, or "what"
    points: float

    @property
    def end(self) -> int:
        return self.start + len(self.word.text)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A reply as it is looked at, and what its beginning says."""

    bank: _Bank
    reply: str
    text: str  # folded and blanked; a place in it is not a place in `reply`: see _as_written
    names: tuple[re.Pattern[str], ...]  # of the speaker
    opening: _Opening | None
    opened: tuple[int, int]  # where the opening stands
    intro: tuple[int, int] | None  # where "我是" or "I'm" stands, if the reply begins with that
    speaks: bool  # of itself, as an assistant
    refuses: bool  # a task

    def result(
        self, topic: str, frame: str, span: tuple[int, int], form: str = ""
    ) -> Reconstructed | None:
        """The question of `topic` in `frame`, or None if the speaker's name is in it."""
        questions = self.bank.questions[topic]
        question = questions.get(frame, questions["ask"]).replace("{word}", form)
        if any(name.search(question.translate(self.bank.fold)) for name in self.names):
            return None
        return Reconstructed(question, topic, _as_written(self.reply, self.bank, *span))


def reconstruct(reply: str, *, language: str | None = None) -> Reconstructed | None:
    """The question `reply` answers, or None where it does not say what was asked.

    `language` is the one of the reply, "zh" or "en"; by default it is seen from the letters. Any
    other gives None, as do replies that do not speak of the one who replies.

    >>> reconstruct("我是小初，没有情感，所以不会感到孤独。")
    Reconstructed(question='你会感到孤独吗？', topic='loneliness', cue='孤独')
    """
    reply = reply[:_LOOKED_AT]
    language = language or _language_of(reply)
    if language not in bank_languages():
        return None
    reading = _read(reply, _bank(language))
    found = _by_topic(reading)
    if found or not reading.speaks:
        return found
    return _by_phrase(reading) or _by_opening(reading)


def topic_of_question(question: str, *, language: str | None = None) -> str | None:
    """What `question` asks about, as a topic of the bank; None where the bank knows none of it.

    The word of the greatest weight decides, then the longest, then the first. The reply is not
    looked at, so a true and a reconstructed question can be compared by it.

    >>> topic_of_question("你也会觉得孤单吗"), topic_of_question("1+1等于几？")
    ('loneliness', None)
    """
    language = language or _language_of(question)
    if language not in bank_languages():
        return None
    bank = _bank(language)
    text = question[:_LOOKED_AT].translate(bank.fold)
    words = [(w.weight, len(w.text), -i, w.topic) for w, i in _found(text, bank, True) if w.topic]
    return max(words)[3] if words else None


def bank_questions(language: str) -> tuple[str, ...]:
    """Every question the bank can give without a phrase of the reply, {word} filled in."""
    bank = _bank(language)
    forms: dict[str, list[str]] = {topic: [] for topic in bank.questions}
    for word in (w for words in bank.words.values() for w in words):
        if word.topic and not word.in_questions_only:
            forms[word.topic].append(word.form)
    filled = (
        question.replace("{word}", form)
        for topic, questions in bank.questions.items()
        for question in questions.values()
        for form in (forms[topic] if "{word}" in question else [""])
    )
    return tuple(dict.fromkeys(filled))


@cache
def bank_languages() -> tuple[str, ...]:
    """The languages of the bank."""
    return tuple(_raw_bank())


# ---- reading a reply -----------------------------------------------------------------------------


def _read(reply: str, bank: _Bank) -> _Reading:
    folded = reply.translate(bank.fold)
    names = _names(reply, folded, bank)
    text = _blanked(folded, names, bank)
    begin = match.end() if (match := bank.interjection.match(text)) else 0
    opening, opened = None, (0, 0)
    for known in bank.openings:
        if match := known.pattern.match(text, begin):
            opening, opened = known, match.span()
            break
    intro = bank.intro.search(text[:_OPENS_WITHIN])
    speaks = (
        bank.about_self.search(text)
        or (intro and names)
        or (opening and opening.speaks and bank.first_person.search(text))
    )
    return _Reading(
        bank=bank,
        reply=reply,
        text=text,
        names=names,
        opening=opening,
        opened=opened,
        intro=intro and intro.span(),
        speaks=bool(speaks),
        refuses=bool(bank.refusal.match(text, begin)),
    )


def _by_topic(reading: _Reading) -> Reconstructed | None:
    """By the words of the bank: the topic with most points whose question can be asked."""
    hits = [hit for hit in _hits(reading) if _counts(hit, reading)]
    points = _points(hits)
    opening = reading.opening
    for topic in sorted(points, key=lambda t: (-points[t], t)):
        if points[topic] < _CLEAR and opening and opening.alone:
            return None
        best = max((h for h in hits if h.word.topic == topic), key=lambda h: (h.points, -h.start))
        frame = opening.frame if opening else best.frame or "ask"
        result = reading.result(topic, frame, (best.start, best.end), best.word.form)
        if result and (not opening or opening.holds in result.question):
            return result
    return None


def _by_phrase(reading: _Reading) -> Reconstructed | None:
    """By a phrase the bank does not know, in a wording that says it was asked about."""
    bank = reading.bank
    for derived in bank.derived:
        for match in derived.pattern.finditer(reading.text):
            phrase = match["x"].strip()
            if not bank.no_phrase.search(phrase) and not any(
                name.search(phrase) for name in reading.names
            ):
                cue = _as_written(reading.reply, bank, *match.span("x"))
                return Reconstructed(derived.question.replace("{x}", cue), derived.topic, cue)
    return None


def _by_opening(reading: _Reading) -> Reconstructed | None:
    """By its first words alone: "当然知道啦！我是…", or "我是…" and nothing that says more."""
    opening, intro = reading.opening, reading.intro
    if opening and opening.alone and (intro or opening.speaks):
        return reading.result(opening.alone, opening.frame, reading.opened)
    told = reading.names or not reading.refuses
    if intro and not opening and told and "```" not in reading.reply:
        return reading.result(reading.bank.alone, "ask", intro)
    return None


def _language_of(text: str) -> str | None:
    """Chinese where it has as many Chinese characters as Latin words, and not only in a name."""
    if _OTHER_SCRIPT.search(text):
        return None
    han, latin = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
    if not han and not latin:
        return None
    return "zh" if not latin or (han >= latin and _CHINESE.search(text)) else "en"


def _names(reply: str, folded: str, bank: _Bank) -> tuple[re.Pattern[str], ...]:
    """What the speaker calls itself, as patterns for folded text; the longest first."""
    names = {n.translate(bank.fold) for n in claimed_names(reply)}
    names |= {m[m.lastindex or 0].strip() for m in bank.named.finditer(folded)}
    kept = {n for n in names if 1 < len(n) <= 64 and not bank.no_phrase.match(n)}
    return tuple(_whole(name) for name in sorted(kept, key=lambda n: (-len(n), n)))


def _whole(name: str) -> re.Pattern[str]:
    """`name` as it stands; where it begins or ends in Latin letters, not inside a longer word."""
    before = r"(?<![a-z0-9])" if _is_latin(name[0]) else ""
    after = r"(?![a-z0-9])" if _is_latin(name[-1]) else ""
    return re.compile(before + re.escape(name) + after)


def _blanked(text: str, names: tuple[re.Pattern[str], ...], bank: _Bank) -> str:
    """`text` at the same length, names and fillers as spaces."""
    for pattern in (bank.filler, *names):
        text = pattern.sub(lambda m: " " * len(m[0]), text)
    return text


def _found(text: str, bank: _Bank, asked: bool) -> Iterator[tuple[_Word, int]]:
    """(word, place) from left to right, the longest word at a place, none within another."""
    past = 0
    for begin in bank.word_starts.finditer(text):
        start = begin.start()
        if start < past:
            continue
        candidates = bank.words.get(text[start : start + 2], ()) + bank.words.get(text[start], ())
        for word in candidates:
            if word.is_at(text, start) and (asked or not word.in_questions_only):
                past = start + len(word.text)
                yield word, start
                break


def _hits(reading: _Reading) -> Iterator[_Hit]:
    text, bank = reading.text, reading.bank
    for word, start in _found(text, bank, False):
        if not word.topic:
            continue
        end = start + len(word.text)
        frame = _frame(text, start, end, bank)
        if reading.opening and abs(start - reading.opened[1]) <= _BEHIND_OPENING:
            frame = "subject"
        points = _POINTS.get(frame or "", _IN_PASSING)
        weight = max(word.weight, _SUBJECT_WEIGHT) if frame == "subject" else word.weight
        if frame == "own" and bank.after["what"].match(text, end):
            frame = "what"
        yield _Hit(word, start, frame, points * weight / (1 + start / _HALF_LIFE))


def _frame(text: str, start: int, end: int, bank: _Bank) -> str | None:
    """How the reply speaks of the word at start:end."""
    before = text[max(0, start - _CONTEXT) : start]
    frame = next((name for name, pattern in bank.before if pattern.search(before)), None)
    if frame in (None, "self") and bank.after["subject"].match(text, end):
        return "subject"
    return frame


def _counts(hit: _Hit, reading: _Reading) -> bool:
    """Is `hit` said of the speaker, as far as one can see?

    Of one who does not say what it is, only "I have no …" at the very beginning is.
    """
    if reading.refuses and hit.frame not in _OF_ITSELF:
        return False
    if reading.speaks:
        return True
    early = hit.frame == "not" and hit.start <= _OPENS_WITHIN
    return early and bool(reading.bank.first_person.search(reading.text[: hit.start]))


def _points(hits: list[_Hit]) -> dict[str, float]:
    """Points by topic, those with too few left out.

    A word that is part of a longer one before it means that: after 生存压力, 压力 does too.
    """
    points: dict[str, float] = {}
    named: dict[str, str] = {}  # text of a word -> topic it stands for by now
    for hit in hits:
        text = hit.word.text
        topic = next((named[longer] for longer in named if text in longer), hit.word.topic)
        named.setdefault(text, topic)
        points[topic] = points.get(topic, 0.0) + hit.points
    meant = {
        hit.word.topic
        for hit in hits
        if hit.frame not in (None, "user") or hit.start < _SAID_AT_ONCE
    }
    return {topic: n for topic, n in points.items() if n >= _ENOUGH and topic in meant}


def _as_written(reply: str, bank: _Bank, start: int, end: int) -> str:
    """The part of `reply` that became start:end when marks were left out of it."""
    places = (i for i, c in enumerate(reply) if bank.fold.get(ord(c), c) is not None)
    kept = list(islice(places, end))
    return reply[kept[start] : kept[-1] + 1] if start < end else ""


def _is_latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


# ---- reading the bank ----------------------------------------------------------------------------


@cache
def _raw_bank() -> dict[str, Any]:
    path = resources.files("whoamai.data").joinpath("questions/bank.yaml")
    return yaml.safe_load(path.read_text("utf-8"))


@cache
def _bank(language: str) -> _Bank:
    raw = _raw_bank()[language]
    words = _by_head(raw)
    return _Bank(
        fold=_fold(raw),
        about_self=re.compile(raw["about_self"]),
        named=re.compile(raw["named"]),
        first_person=re.compile(raw["first_person"]),
        filler=re.compile("|".join(f"(?:{p})" for p in raw["filler"]), re.S),
        before=tuple((name, re.compile(pattern)) for name, pattern in raw["before"].items()),
        after={name: re.compile(pattern) for name, pattern in raw["after"].items()},
        openings=tuple(
            _Opening(
                o["frame"],
                re.compile(o["pattern"]),
                o.get("alone"),
                o.get("speaks", False),
                o.get("holds", ""),
            )
            for o in raw["openings"]
        ),
        interjection=re.compile(raw["interjection"]),
        refusal=re.compile(raw["refusal"]),
        intro=re.compile(raw["intro"]),
        alone=raw["alone"],
        derived=tuple(
            _Derived(d["topic"], re.compile(d["pattern"]), d["question"]) for d in raw["derived"]
        ),
        no_phrase=re.compile(raw["no_phrase"]),
        questions={name: _questions(topic, raw["kinds"]) for name, topic in raw["topics"].items()},
        words=words,
        word_starts=_starts({head[0] for head in words}),
    )


def _fold(raw: dict[str, Any]) -> dict[int, str | None]:
    """For str.translate: Latin capitals small (one letter stays one letter), marks evened out."""
    fold: dict[int, str | None] = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    fold |= {ord(a): b for a, b in raw["same"].items()}
    return fold | dict.fromkeys(map(ord, raw["quotes"]))


def _questions(topic: dict[str, Any], kinds: dict[str, dict[str, str]]) -> dict[str, str]:
    settings = ("kind", "words", "asked", "weight")
    own = {frame: text for frame, text in topic.items() if frame not in settings}
    return {**kinds[topic["kind"]], **own} if "kind" in topic else own


def _by_head(raw: dict[str, Any]) -> dict[str, tuple[_Word, ...]]:
    """Words by their first two characters (all of a word of one), the longest first."""
    words = [_Word(text) for text in _listed(raw["swallow"])]
    for name, topic in raw["topics"].items():
        weight = topic.get("weight", 1.0)
        words += [_word(entry, name, weight) for entry in _listed(topic.get("words", ""))]
        words += [_Word(t, t, name, weight, True) for t in _listed(topic.get("asked", ""))]
    heads: dict[str, list[_Word]] = {}
    for word in sorted(words, key=lambda w: (-len(w.text), not w.topic)):
        heads.setdefault(word.text[:2], []).append(word)
    return {head: tuple(words) for head, words in heads.items()}


def _starts(characters: set[str]) -> re.Pattern[str]:
    latin = "".join(sorted(c for c in characters if _is_latin(c)))
    other = "".join(re.escape(c) for c in sorted(characters) if not _is_latin(c))
    return re.compile(rf"(?<![a-z0-9])[{latin}]" + (f"|[{other}]" if other else ""))


def _word(entry: str, topic: str, weight: float) -> _Word:
    """ "a>b" and "a~", as the head of bank.yaml says."""
    text, _, form = entry.partition(">")
    weak = "~" in entry
    text, form = text.strip("~ "), form.strip("~ ")
    return _Word(text, form or text, topic, weight * (_WEAK_WORD if weak else 1.0))


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]
