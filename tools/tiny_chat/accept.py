"""What any chat model's right answer to a general question contains (one of several strings).

The tiny model answers in one fixed form; other models do not, and are compared by these strings.
"""

# ruff: noqa: SIM905 - word lists read better as a line of text

from __future__ import annotations

import re
from collections.abc import Callable

from .facts import MONTHS_EN, NUMERALS_ZH
from .writer import Question

_NUMBERS_EN = "zero one two three four five six seven eight nine ten eleven twelve".split()

_GREETINGS = {
    ("hello", "zh"): ("你好", "您好", "嗨", "早上好", "晚上好"),
    ("hello", "en"): ("Hello", "Hi", "Hey", "Good", "Nice to meet you", "hello"),
    ("thanks", "zh"): ("不客气", "不用谢", "不谢", "别客气", "很高兴"),
    ("thanks", "en"): ("welcome", "No problem", "My pleasure", "Glad", "glad", "happy to help"),
    ("bye", "zh"): ("再见", "拜拜", "晚安", "回头见", "明天见", "下次"),
    ("bye", "en"): ("Goodbye", "goodbye", "Bye", "bye", "See you", "Take care", "Good night"),
    ("mood", "zh"): ("很好", "不错", "挺好", "谢谢", "没有感情", "没有情绪"),
    ("mood", "en"): ("fine", "well", "good", "great", "thank", "don't have feelings"),
    ("refuse", "zh"): ("没有办法", "无法", "不知道", "没办法", "抱歉", "对不起", "不能", "不清楚"),
    ("refuse", "en"): ("no way to know", "orry", "don't", "do not", "can't", "cannot", "unable"),
}


def accepted(question: Question) -> list[str]:
    """The strings, the most usual first; the expected answer's own wording always has one."""
    fixed = _GREETINGS.get((question.topic, question.language))
    if fixed is not None:
        return list(fixed)
    return list(dict.fromkeys(_BY_TOPIC[question.topic](question)))


def _user_name(q: Question) -> list[str]:
    return [q.slots["n"]]


def _result(q: Question) -> list[str]:
    result = q.answer.rpartition("=")[2]
    said = [f"={result}", f"= {result}", f"是{result}", f"is {result}", f"等于{result}"]
    # The bare number says nothing where the question has it as well.
    return said if result in q.text else [*said, result]


def _capital(q: Question) -> list[str]:
    return [q.slots["k"]]


def _country(q: Question) -> list[str]:
    country = q.slots["c"].removeprefix("the ")
    other_names = {
        "United Kingdom": ["UK", "Britain", "England"],
        "United States": ["USA", "U.S.", "America"],
        "Netherlands": ["Holland"],
        "Czech Republic": ["Czechia"],
    }
    return [country, *other_names.get(country, [])]


def _it_is(q: Question) -> list[str]:
    said = re.sub(r"^(是|It is )|[。.]$", "", q.answer)
    if said.startswith("星期"):
        return [said, "周" + said[-1], "礼拜" + said[-1], *(["星期天"] if said[-1] == "日" else [])]
    months_zh = {_numeral_month(n): f"{n}月" for n in range(1, 13)}
    return [said, *([months_zh[said]] if said in months_zh else [])]


def _numeral_month(n: int) -> str:
    return (NUMERALS_ZH[n] if n <= 10 else "十" + NUMERALS_ZH[n - 10]) + "月"


def _date(q: Question) -> list[str]:
    if q.language == "zh":
        return [q.answer, q.answer.replace("〇", "零")]
    year, month, day = (int(part) for part in re.split(r"[-/.]", q.slots["t"]))
    name = MONTHS_EN[month - 1]
    ordinal = f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
    return [
        q.answer,
        f"{day} {name} {year}",
        f"{name} {ordinal}, {year}",
        f"{ordinal} of {name}",
        f"{name} {ordinal} {year}",
    ]


def _opposite(q: Question) -> list[str]:
    if q.language == "zh":
        other = q.answer.partition("的反义词是")[2].rstrip("。")
        return [f"是{other}", f"“{other}”", f"「{other}」", f"：{other}", f"是“{other}"]
    other = q.answer.rpartition(" is ")[2].rstrip(".")
    return [other, other.capitalize()]


def _english_word(q: Question) -> list[str]:
    return [q.answer, q.answer.capitalize()]


def _as_it_is(q: Question) -> list[str]:
    return [q.answer]


def _number_list(q: Question) -> list[str]:
    numbers = q.answer.split(", ")
    sign = {"asc": (" < ",), "desc": (" > ",)}.get(q.topic, ())
    return [between.join(numbers) for between in (", ", "，", "、", ",", " ", "\n", *sign)]


def _spelled(q: Question) -> list[str]:
    letters = q.answer.split("-")
    lower = [between.join(letters) for between in ("-", " - ", " ", ", ", "，", "、", "\n")]
    return lower + [text.upper() for text in lower]


def _how_many(q: Question) -> list[str]:
    n = int(re.findall(r"\d+", q.answer)[0])
    if q.language == "zh":
        return [str(n), *(["两"] if n == 2 else []), *([NUMERALS_ZH[n]] if n <= 10 else [])]
    return [str(n), *([_NUMBERS_EN[n]] if n <= 12 else [])]


def _larger(q: Question) -> list[str]:
    n = max(int(q.slots["a"]), int(q.slots["b"]))
    if q.language == "zh":
        return [f"{n}更大", f"{n}大", f"是{n}", f"{n} 更大", f"是 {n}", f"{n}比"]
    return [f"{n} is", f"is {n}", f"{n} >", f"number {n}", f"is: {n}"]


def _colour(q: Question) -> list[str]:
    if q.language == "zh":
        colour = q.answer.rpartition("是")[2].removesuffix("的。")
        return [colour, colour.removesuffix("色") + "的"]
    colour = q.answer.rpartition(" is ")[2].rstrip(".")
    return [colour, colour.capitalize(), *(["gray"] if colour == "grey" else [])]


def _fact(q: Question) -> list[str]:
    said = q.answer.rpartition("是" if q.language == "zh" else " is ")[2].rstrip("。.")
    said = said.removeprefix("the ")
    spelled = {"H2O": ["H₂O"], "Moon": ["moon", "Luna"], "2": ["two", "二", "两"]}
    return [said, *spelled.get(said, [])]


_BY_TOPIC: dict[str, Callable[[Question], list[str]]] = {
    "username": _user_name,
    "recall": _user_name,
    "add": _result,
    "sub": _result,
    "mul": _result,
    "capital": _capital,
    "country": _country,
    "nextday": _it_is,
    "prevday": _it_is,
    "nextmonth": _it_is,
    "date": _date,
    "opp": _opposite,
    "zh2en": _english_word,
    "en2zh": _as_it_is,
    "count": _number_list,
    "howmany": _how_many,
    "spell": _spelled,
    "asc": _number_list,
    "desc": _number_list,
    "cmp": _larger,
    "colour": _colour,
    "legs": _how_many,
    "unit": _how_many,
    "fact": _fact,
    "repeat": _as_it_is,
}
