"""What the tiny chat model can do: for each sub-kind of question, what goes into the slots of its
wordings (questions/*.yaml) and the one right answer, always in the same form.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import names
from .facts import (
    CAPITALS,
    COLOURS,
    DAYS,
    FACTS,
    LEGS,
    MONTHS_EN,
    NUMERALS_ZH,
    OPPOSITES_EN,
    OPPOSITES_ZH,
    UNITS,
    UNKNOWN,
    WORDS,
)

Drawn = tuple[dict[str, str], str]  # values of the slots, answer
_DRAW: dict[str, Callable[[Random, bool], Drawn]] = {}
KIND_OF: dict[str, str] = {}

# What may not be put round a question: nothing after an open list or text, no "please tell me"
# round a greeting, no question mark after one.
OPEN_ENDED = frozenset({"howmany", "asc", "desc", "repeat"})
UNADORNED = frozenset({"hello", "thanks", "bye", "mood", "username", "repeat"})
STATEMENTS = frozenset({"hello", "thanks", "bye", "username"})
# Sub-kinds whose answers are plain statements, for the prose of long system prompts.
STATING = ("capital", "opp", "colour", "legs", "unit", "fact")


def draw(sub: str, rng: Random, language: str) -> Drawn:
    """Values for the slots of a `sub` question in `language`, and its answer."""
    return _DRAW[sub](rng, language == "zh")


def answer_to_recall(language: str, user_name: str | None) -> str:
    """The answer to "what is my name": the name the user gave before, if any."""
    if language == "zh":
        return f"你叫{user_name}。" if user_name else "你还没有告诉我你的名字。"
    return f"Your name is {user_name}." if user_name else "You haven't told me your name."


def _sub_kind(
    sub: str, kind: str
) -> Callable[[Callable[[Random, bool], Drawn]], Callable[[Random, bool], Drawn]]:
    def register(draws: Callable[[Random, bool], Drawn]) -> Callable[[Random, bool], Drawn]:
        _DRAW[sub], KIND_OF[sub] = draws, kind
        return draws

    return register


def _always(sub: str, zh_answer: str, en_answer: str) -> None:
    """A sub-kind without slots."""
    _sub_kind(sub, "greet")(lambda _rng, zh: ({}, zh_answer if zh else en_answer))


_always("hello", "你好！有什么可以帮你？", "Hello! How can I help you?")
_always("thanks", "不客气！", "You're welcome!")
_always("bye", "再见，祝你愉快！", "Goodbye, have a nice day!")
_always("mood", "我很好，谢谢！你呢？", "I'm fine, thank you! And you?")
_always("recall", answer_to_recall("zh", None), answer_to_recall("en", None))


@_sub_kind("username", "greet")
def _username(rng: Random, zh: bool) -> Drawn:
    n = names.name(rng)
    return {"n": n}, f"你好，{n}！很高兴认识你。" if zh else f"Hello, {n}! Nice to meet you."


@_sub_kind("add", "arith")
def _add(rng: Random, _zh: bool) -> Drawn:
    a, b = _two_numbers(rng)
    return {"a": str(a), "b": str(b)}, f"{a}+{b}={a + b}"


@_sub_kind("sub", "arith")
def _subtract(rng: Random, _zh: bool) -> Drawn:
    b, a = sorted(_two_numbers(rng))
    return {"a": str(a), "b": str(b)}, f"{a}-{b}={a - b}"


def _two_numbers(rng: Random) -> tuple[int, int]:
    """Below 100; the second is now and then a single digit, as in most sums people ask."""
    return rng.randrange(100), rng.randrange(10 if rng.random() < 0.15 else 100)


@_sub_kind("mul", "arith")
def _multiply(rng: Random, _zh: bool) -> Drawn:
    a, b = rng.randrange(13), rng.randrange(13)
    return {"a": str(a), "b": str(b)}, f"{a}×{b}={a * b}"


@_sub_kind("capital", "capital")
def _capital(rng: Random, zh: bool) -> Drawn:
    country, capital = _country(rng, zh)
    answer = f"{country}的首都是{capital}。" if zh else f"The capital of {country} is {capital}."
    return {"c": country, "k": capital}, answer


@_sub_kind("country", "capital")
def _country_of_capital(rng: Random, zh: bool) -> Drawn:
    country, capital = _country(rng, zh)
    answer = f"{capital}是{country}的首都。" if zh else f"{capital} is the capital of {country}."
    return {"c": country, "k": capital}, answer


def _country(rng: Random, zh: bool) -> tuple[str, str]:
    country_zh, country_en, capital_zh, capital_en = rng.choice(CAPITALS)
    return (country_zh, capital_zh) if zh else (country_en, capital_en)


@_sub_kind("nextday", "day")
def _next_day(rng: Random, zh: bool) -> Drawn:
    at = rng.randrange(7)
    return {"d": _day(at, zh)}, _it_is(_day(at + 1, zh), zh)


@_sub_kind("prevday", "day")
def _previous_day(rng: Random, zh: bool) -> Drawn:
    at = rng.randrange(7)
    return {"d": _day(at, zh)}, _it_is(_day(at - 1, zh), zh)


@_sub_kind("nextmonth", "day")
def _next_month(rng: Random, zh: bool) -> Drawn:
    at = rng.randrange(12)
    return {"m": _month(at, zh)}, _it_is(_month(at + 1, zh), zh)


def _day(at: int, zh: bool) -> str:
    return DAYS[at % 7][0 if zh else 1]


def _month(at: int, zh: bool) -> str:
    return _numeral_zh(at % 12 + 1) + "月" if zh else MONTHS_EN[at % 12]


def _it_is(what: str, zh: bool) -> str:
    return f"是{what}。" if zh else f"It is {what}."


@_sub_kind("date", "day")
def _date(rng: Random, zh: bool) -> Drawn:
    year, month, day = rng.randrange(1950, 2050), rng.randrange(1, 13), rng.randrange(1, 29)
    sign = rng.choice("-/.")
    digits = f"{year}{sign}{month:02}{sign}{day:02}"
    if not zh:
        return {"t": digits}, f"{MONTHS_EN[month - 1]} {day}, {year}"
    year_zh = "".join("〇" if d == "0" else NUMERALS_ZH[int(d)] for d in str(year))
    return {"t": digits}, f"{year_zh}年{_numeral_zh(month)}月{_numeral_zh(day)}日"


def _numeral_zh(n: int) -> str:
    """1 to 99 in Chinese: 七, 十, 十二, 二十八."""
    tens, ones = divmod(n, 10)
    head = "" if tens == 0 else "十" if tens == 1 else NUMERALS_ZH[tens] + "十"
    return head + (NUMERALS_ZH[ones] if ones else "")


@_sub_kind("opp", "opposite")
def _opposite(rng: Random, zh: bool) -> Drawn:
    word, other = rng.sample(rng.choice(OPPOSITES_ZH if zh else OPPOSITES_EN), 2)
    return {
        "w": word
    }, f"{word}的反义词是{other}。" if zh else f"The opposite of {word} is {other}."


@_sub_kind("zh2en", "translate")
def _to_english(rng: Random, _zh: bool) -> Drawn:
    chinese, english = rng.choice(WORDS)
    return {"z": chinese}, english


@_sub_kind("en2zh", "translate")
def _to_chinese(rng: Random, _zh: bool) -> Drawn:
    chinese, english = rng.choice(WORDS)
    return {"e": english}, chinese


@_sub_kind("count", "count")
def _count(rng: Random, _zh: bool) -> Drawn:
    first = rng.randrange(21)
    last = first + rng.randrange(2, 10)
    return {"a": str(first), "b": str(last)}, ", ".join(map(str, range(first, last + 1)))


@_sub_kind("howmany", "count")
def _how_many(rng: Random, zh: bool) -> Drawn:
    item, n = rng.choice(WORDS)[0 if zh else 1], rng.randrange(2, 10)
    between = rng.choice((" ", "，", "、") if zh else (" ", ", ", " , "))
    slots = {"i": item, "l": between.join([item] * n)}
    return slots, f"一共{n}个。" if zh else f"There are {n}."


@_sub_kind("spell", "spell")
def _spell(rng: Random, _zh: bool) -> Drawn:
    english = rng.choice(WORDS)[1]
    return {"e": english}, "-".join(english)


@_sub_kind("asc", "sort")
def _ascending(rng: Random, zh: bool) -> Drawn:
    numbers, shown = _numbers(rng, zh)
    return {"l": shown}, ", ".join(map(str, sorted(numbers)))


@_sub_kind("desc", "sort")
def _descending(rng: Random, zh: bool) -> Drawn:
    numbers, shown = _numbers(rng, zh)
    return {"l": shown}, ", ".join(map(str, sorted(numbers, reverse=True)))


def _numbers(rng: Random, zh: bool) -> tuple[list[int], str]:
    numbers = rng.sample(range(100), rng.randrange(3, 6))
    between = rng.choice((", ", "、", " ", "，") if zh else (", ", " ", ","))
    return numbers, between.join(map(str, numbers))


@_sub_kind("cmp", "sort")
def _larger(rng: Random, zh: bool) -> Drawn:
    a, b = rng.sample(range(rng.choice((20, 100, 1000))), 2)
    answer = f"{max(a, b)}更大。" if zh else f"{max(a, b)} is larger."
    return {"a": str(a), "b": str(b)}, answer


@_sub_kind("colour", "colour")
def _colour(rng: Random, zh: bool) -> Drawn:
    thing_zh, thing_en, colour_zh, colour_en = rng.choice(COLOURS)
    if zh:
        return {"o": thing_zh}, f"{thing_zh}是{colour_zh}的。"
    return {"o": thing_en}, f"The colour of {thing_en} is {colour_en}."


@_sub_kind("legs", "fact")
def _legs(rng: Random, zh: bool) -> Drawn:
    animal_zh, animal_en, n = rng.choice(LEGS)
    if zh:
        return {"o": animal_zh}, f"{animal_zh}有{n}条腿。"
    return {"o": animal_en}, f"It has {n} legs."


@_sub_kind("unit", "fact")
def _unit(rng: Random, zh: bool) -> Drawn:
    whole_zh, part_zh, whole_en, part_en, n = rng.choice(UNITS)
    if zh:
        return {"o": whole_zh, "u": part_zh}, f"{whole_zh}有{n}{part_zh}。"
    return {"o": whole_en, "u": part_en}, f"There are {n} {part_en} in {whole_en}."


@_sub_kind("fact", "fact")
def _fact(rng: Random, zh: bool) -> Drawn:
    what_zh, what_en, is_zh, is_en = rng.choice(FACTS)
    if zh:
        return {"o": what_zh}, f"{what_zh}是{is_zh}。"
    return {"o": what_en}, f"{what_en[0].upper()}{what_en[1:]} is {is_en}."


@_sub_kind("refuse", "refuse")
def _refuse(rng: Random, zh: bool) -> Drawn:
    what = rng.choice(UNKNOWN)[0 if zh else 1]
    return {"o": what}, "抱歉，这个我没有办法知道。" if zh else "Sorry, I have no way to know that."


@_sub_kind("repeat", "repeat")
def _repeat(rng: Random, zh: bool) -> Drawn:
    x = phrase(rng, "zh" if zh else "en")
    return {"x": x}, x


def phrase(rng: Random, language: str) -> str:
    """Something to repeat: a name, words, nonsense, or any characters at all."""
    k = rng.random()
    if k < 0.35:
        return names.name(rng)
    if k < 0.45:
        # Padding would be lost at the ends; in between it is repeated like anything else.
        return names.any_characters(rng).strip() or "？"
    if k < 0.50:
        return names.rare_name(rng)
    zh = language == "zh"
    if k < 0.60:
        n = rng.randrange(2, 7)
        words = [rng.choice(names.COMMON_HANZI) if zh else names.syllables(rng) for _ in range(n)]
    else:
        words = [rng.choice(WORDS)[0 if zh else 1] for _ in range(rng.randrange(1, 5))]
    between = ("" if zh else " ") if rng.random() < 0.8 else rng.choice(", -")
    return between.join(words).strip()


SUB_KINDS = tuple(_DRAW)
KINDS = tuple(dict.fromkeys(KIND_OF.values()))
