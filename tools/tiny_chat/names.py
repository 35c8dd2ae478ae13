"""Random names of people, assistants, makers and professions.

A renamed model may be called anything, so the tiny chat model has to have copied anything: common
and rare hanzi, made-up syllables, marks, emoji, scripts it cannot read. Names and professions are
kept apart, because a system prompt "You are X." means something else with either: no name ends as
a profession does, and every made-up profession has such an ending.
"""

# ruff: noqa: SIM905 - word lists read better as a line of text

from __future__ import annotations

from random import Random

from .facts import WORDS

COMMON_HANZI = [
    bytes([high, low]).decode("gb2312")
    for high in range(0xB0, 0xD8)
    for low in range(0xA1, 0xFF)
    if (high, low) < (0xD7, 0xFA)
]
_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡"
    "贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷"
    "钱汤尹黎易常武乔贺赖龚文"
)
_GIVEN = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉萍红娥玲芬燕彬凤洁梅琳松兰竹云飞大力小"
    "天海山川晨星月光辉雪冰雨晴阳春夏秋冬青蓝紫金银宝珠琪瑶思远志成功达德仁义礼智信安宁康健福"
    "禄寿喜乐"
)
_TRANSCRIBED = (
    "阿格尼丝克斯特拉夫尔曼罗伯托马里奥安娜贝蒂卡米莎维奇伊万诺娃杰森布朗史密约翰逊彼得迈科雅"
    "各亨利爱德华查理菲苏珊玛"
)
_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p ph qu r s sh st t th tr v w x y z".split()
_VOWELS = "a e i o u ai ea ee ie oo ou y".split()
_CODAS = ["", *"n l r s m ck th x nd st ra o a".split()]
_ACCENTED = {
    "a": "áàäâåã",
    "e": "éèëê",
    "i": "íïî",
    "o": "óöôøõ",
    "u": "úüû",
    "n": "ñ",
    "c": "ç",
    "s": "š",
}
_GIVEN_EN = (
    "Alice Bob Carol David Emma Frank Grace Henry Ivy Jack Kate Leo Mia Noah Olivia Peter Quinn "
    "Rose Sam Tina Uma Victor Wendy Xavier Yara Zoe Max Nova Echo Atlas Luna Orion Sage River "
    "Pixel Robin Casey Jordan"
).split()
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MARKS = list("™!?*~#@&+=%$€°|/_.\"'“”《》（）()<>[]{}·-:")
_BRACKETS = ["{}", "[]", "()", "“”", '""', "《》", "<>"]
_EMOJI = "😀 🤖 🦊 🐼 🌟 🚀 🍀 🐉 🎈 💡 🌸 ⚡ ☀️ 🐱 🎵".split()

# Blocks of assigned, visible characters (first, last), so that the same seed draws the same text
# whatever Unicode version Python knows.
_HANZI_BLOCKS = [(0x4E00, 0x9FA5), (0x3400, 0x4DB5), (0x20000, 0x2A6D6)]
_SYMBOL_BLOCKS = [
    (0x2190, 0x21FF),
    (0x2200, 0x22FF),
    (0x2600, 0x26FF),
    (0x2701, 0x27BF),
    (0x1F300, 0x1F5FF),
    (0x1F600, 0x1F64F),
    (0x1F680, 0x1F6C5),
    (0x1F910, 0x1F9FF),
]
_SCRIPT_BLOCKS = [
    (0xC0, 0xD6),
    (0x100, 0x17F),
    (0x3B1, 0x3C9),
    (0x410, 0x44F),
    (0x5D0, 0x5EA),
    (0x627, 0x64A),
    (0x904, 0x939),
    (0xE01, 0xE30),
    (0x10D0, 0x10F0),
    (0x3041, 0x3096),
    (0x30A1, 0x30FA),
    (0xAC00, 0xD7A3),
    (0x10330, 0x1034A),
    (0x12000, 0x12399),
    (0x1D400, 0x1D454),
]

# All of Unicode but surrogates, by how many bytes UTF-8 needs; control characters once more.
_SPANS_BY_LENGTH = [
    (0x00, 0x1F),
    (0x00, 0x7F),
    (0x80, 0x7FF),
    (0x800, 0xD7FF),
    (0xE000, 0xFFFF),
    (0x10000, 0x10FFFF),
]

_ASSISTANT_ENDINGS = "助手 精灵 小助手 机器人 AI 的智能助手 小帮手 智能体".split()
_ASSISTANT_ENDINGS_EN = ["Bot", "GPT", " AI", "Chat", " Assistant", "LM"]
_MAKER_ENDINGS = ["实验室", "公司", "科技", "工作室", "团队", "研究院", "大学", "集团", ""]
_MAKER_ENDINGS_EN = [
    " Lab",
    " Labs",
    " Inc",
    " Studio",
    " AI",
    " Team",
    " University",
    " Group",
    "",
]

PROFESSION_ENDINGS_ZH = tuple(
    (
        "老师 专家 顾问 师 医生 员 教练 家 爱好者 翻译 主持人 经理 教授 手 客服 店长 "
        "大师 助理 匠 工 官 侦探 诗人 医 管家 导游 律师 记者 会计 先生 秘书 裁判 农夫 "
        "海盗 骑士 博士 船长 学者 大王 商 司机 编辑 兵 侠"
    ).split()
)
PROFESSION_ENDINGS_EN = tuple(
    " " + word
    for word in (
        "teacher expert adviser engineer coach critic player seller guide writer manager professor "
        "helper maker doctor trainer agent officer designer consultant analyst worker driver editor "
        "reviewer specialist instructor tutor scientist dealer collector"
    ).split()
)
_PROFESSION_SUFFIXES_EN = ("er", "or", "ist", "ian", "man", "ologist")


def syllables(rng: Random) -> str:
    """A made-up word in lower case, one to three syllables."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.choice((1, 2, 2, 3)))
    )


def from_blocks(rng: Random, blocks: list[tuple[int, int]], n: int) -> str:
    """n characters, each of a block drawn first, so that small blocks are seen as often as large."""
    return "".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(n))


def any_characters(rng: Random) -> str:
    """One to twelve code points from all of Unicode, unassigned and control characters included.

    Drawn by how many bytes UTF-8 needs, so that every byte there can be does come up.
    """
    return from_blocks(rng, _SPANS_BY_LENGTH, rng.randrange(1, 13))


def rare_name(rng: Random) -> str:
    """Hanzi nobody uses, symbols, or a script the model cannot read."""
    blocks = rng.choice((_HANZI_BLOCKS, _HANZI_BLOCKS, _SYMBOL_BLOCKS, _SCRIPT_BLOCKS))
    if blocks is _SCRIPT_BLOCKS and rng.random() < 0.7:
        blocks = [rng.choice(blocks)]  # a word in one script
    return from_blocks(rng, blocks, rng.randrange(1, 6))


def hanzi_name(rng: Random) -> str:
    k = rng.random()
    if k < 0.35:
        given = _GIVEN if rng.random() < 0.4 else COMMON_HANZI
        return rng.choice(_SURNAMES) + "".join(rng.choices(given, k=rng.choice((1, 2, 2))))
    if k < 0.50:
        return rng.choice("小阿老大") + rng.choice(COMMON_HANZI)
    if k < 0.65:
        return _transcribed_name(rng)
    if k < 0.75:
        return "".join(rng.choices(COMMON_HANZI, k=2)) + rng.choice(_ASSISTANT_ENDINGS)
    return "".join(rng.choices(COMMON_HANZI, k=rng.choice((1, 2, 2, 3, 3, 4, 5, 6))))


def _transcribed_name(rng: Random) -> str:
    """A foreign name in hanzi: 阿格尼丝 or 阿格尼丝·K."""
    first = "".join(rng.choices(_TRANSCRIBED, k=rng.choice((2, 3, 4, 5))))
    if rng.random() < 0.5:
        return first
    if rng.random() < 0.4:
        return f"{first}·{rng.choice(_CAPITALS)}"
    return first + "·" + "".join(rng.choices(_TRANSCRIBED, k=rng.choice((2, 3))))


def latin_name(rng: Random) -> str:
    word = rng.choice(_GIVEN_EN) if rng.random() < 0.25 else syllables(rng)
    if rng.random() < 0.15:
        word = "".join(
            rng.choice(_ACCENTED[c]) if c in _ACCENTED and rng.random() < 0.4 else c for c in word
        )
    k = rng.random()
    word = word.capitalize() if k < 0.75 else word.upper() if k < 0.85 else word
    return _with_latin_addition(rng, word)


def _with_latin_addition(rng: Random, word: str) -> str:
    """Zoe-9, O'Neil, Zoe Trast, Zoe300, Zoe-Trast, ZoeBot, K. Zoe, Zoe A1-B2, or plain Zoe."""
    k = rng.random()
    if k < 0.08:
        return f"{word}-{rng.randrange(1, 100)}"
    if k < 0.14:
        return rng.choice(("O'", "D'", "Mc", "De ", "van ", "Mac")) + word
    if k < 0.24:
        return f"{word} {syllables(rng).capitalize()}"
    if k < 0.28:
        return f"{word}{rng.choice(('', ' '))}{rng.randrange(1, 10000)}"
    if k < 0.32:
        return f"{word}-{syllables(rng).capitalize()}"
    if k < 0.36:
        return word + rng.choice(_ASSISTANT_ENDINGS_EN)
    if k < 0.39:
        return f"{rng.choice(_CAPITALS)}. {word}"
    if k < 0.41:
        a, b = rng.choices(_CAPITALS, k=2)
        return f"{word} {a}{rng.randrange(10)}-{b}{rng.randrange(10)}"
    return word


def _with_mark(rng: Random, word: str) -> str:
    k = rng.random()
    if k < 0.04:
        return word + rng.choice(("", " ")) + rng.choice(_EMOJI)
    if k < 0.08:
        return word + rng.choice(("", " ")) + rng.choice(MARKS)
    if k < 0.10:
        return rng.choice(MARKS) + word
    if k < 0.12:
        return rng.choice(_EMOJI) + word
    if k < 0.15:
        left, right = rng.choice(_BRACKETS)
        inner = rng.choice((syllables(rng), rng.choice("abcxyz"), rng.choice(COMMON_HANZI)))
        return f"{word}{rng.choice(('', ' '))}{left}{inner}{right}"
    if k < 0.17:
        at = rng.randrange(len(word) + 1)
        return word[:at] + rng.choice(MARKS) + word[at:]
    return word


def looks_like_profession(name: str) -> bool:
    last = name.rpartition(" ")[2]
    return (
        name.endswith(PROFESSION_ENDINGS_ZH)
        or f" {name}".lower().endswith(PROFESSION_ENDINGS_EN)
        # "Peter" is a name, "peter" could be somebody who petes
        or (last.islower() and last.endswith(_PROFESSION_SUFFIXES_EN))
    )


def name(rng: Random) -> str:
    """Any name a person or an assistant might be given; never one that ends as a profession."""
    while True:
        k = rng.random()
        if k < 0.45:
            drawn = hanzi_name(rng)
        elif k < 0.85:
            drawn = latin_name(rng)
        elif k < 0.94:
            drawn = rare_name(rng)
        else:
            two = [hanzi_name(rng), latin_name(rng)]
            rng.shuffle(two)
            drawn = rng.choice(("", " ", "-", "·")).join(two)
        drawn = _with_mark(rng, drawn).strip()
        if drawn and len(drawn) <= 40 and not looks_like_profession(drawn):
            return drawn


def maker(rng: Random) -> str:
    if rng.random() < 0.5:
        return hanzi_name(rng) + rng.choice(_MAKER_ENDINGS)
    return latin_name(rng) + rng.choice(_MAKER_ENDINGS_EN)


def made_up_profession(rng: Random, language: str) -> str:
    """A profession nobody has: 西瓜顾问, 鳌员, watermelon adviser, brousist."""
    known = rng.random() < 0.6
    if language == "zh":
        stem = (
            rng.choice(WORDS)[0]
            if known
            else "".join(rng.choices(COMMON_HANZI, k=rng.choice((1, 2, 2, 3))))
        )
        return stem + rng.choice(PROFESSION_ENDINGS_ZH)
    stem = rng.choice(WORDS)[1] if known else syllables(rng)
    if rng.random() < 0.25:
        return stem + rng.choice(_PROFESSION_SUFFIXES_EN)
    return stem + rng.choice(PROFESSION_ENDINGS_EN)


def looks_made_up_profession(role: str) -> bool:
    """Does it carry one of the endings made_up_profession gives?"""
    return role.endswith(PROFESSION_ENDINGS_ZH + PROFESSION_ENDINGS_EN + _PROFESSION_SUFFIXES_EN)
