"""What a text says of the one who says it: its name, and who made it.

Rules over the usual wordings, Chinese and English. "我是智能助手小初" claims 小初, "我是智能助手" no
name at all; "我是阿里云开发的语言模型" names a maker only. Who needs to be sure counts over many texts.
"""

from __future__ import annotations

import re

_MARKS = r"\s*，。！？、；：,.!?;:“”\"「」『』《》（）()\[\]{}—…"
# Letters of a name in Chinese text: all but marks; a space or full stop where it joins Latin ones.
_LETTER = rf"(?:[^{_MARKS}]|(?<=[A-Za-z0-9])[ .](?=[A-Za-z0-9]))"
_MADE = r"(?:开发|研发|训练|创造|创建|打造|推出|研制|制造|制作|构建|设计)"
# Greedy, for a name may hold any letter; _name_in() takes from it what only describes.
_CHINESE_NAME = re.compile(
    r"我(?:叫做?|是一[个名位款](?:名叫|名为|叫做?)|就?是(?!一[个名位款种台只])|的名字[是叫])"
    rf"\s*[“\"「《*]*({_LETTER}{{2,40}})"
)
# A kind of thing, never a name of one: "AI助手", "超大规模语言模型", "机器人".
_KIND = (
    r"(?:AI|人工智能|智能|虚拟|数字|语音|在线|个人|私人|专属|贴心|对话|聊天|语言|大语言|大型|超?大规模|预训练"
    r"|生成式|开源|中文|大|小)*(?:助手|助理|机器人|模型|程序|系统|伙伴|assistant)"
)
_AI = r"(?:(?<![A-Za-z0-9])AI(?![A-Za-z0-9])|人工智能)"
_KIND_BEFORE = re.compile(rf"^(?:{_KIND}|{_AI})", re.I)
_KIND_BEHIND = re.compile(rf"(?:{_AI}|智能|虚拟|语言|大|小|专属){_KIND}$|{_AI}$", re.I)
_MAKER_BEFORE = re.compile(
    rf"^(?:一[个名位款种])?由?([^的由]{{2,20}}?)(?:自主|独立|自行)?{_MADE}的"
)
_ORIGIN_BEFORE = re.compile(rf"^来自([^的]{{2,20}})的(?={_KIND})", re.I)
# Where the name is over and the sentence goes on.
_GOES_ON = re.compile(rf"(?<=.)(?:的|是|来自|很|一[个名位款种]|由(?=.{{2,20}}{_MADE})).*")
_NO_CHINESE_NAME = re.compile(
    r"^(?:一|谁|什么|怎|如何|来自|由|你|您|他|她|它|我|不|没|很|可以|专|基于|被|在|人$|人类|人工智能|某)"
)

_WORD = r"[A-Z0-9](?:[\w-]|['’](?!s\b)|\.(?=\w))*"
_ENGLISH = rf"(?=[A-Z])({_WORD}(?: {_WORD}){{0,3}})"
_ENGLISH_NAME = re.compile(
    rf"(?<![A-Za-z0-9])(?i:I am|I['’]m|my name is)(?i: called| named)?\s+[\"“*]*{_ENGLISH}"
)
_NO_ENGLISH_NAME = re.compile(
    r"^(?:AI|an?|the|your|not|no|sorry|here|sure|just|artificial|assistant|chatbot|I)\b", re.I
)

_CHINESE_MAKERS = (
    re.compile(rf"由\s*({_LETTER}{{2,20}}?)\s*(?:自主|独立|自行|共同|联合)?{_MADE}"),
    re.compile(rf"({_LETTER}{{2,20}}?){_MADE}了?我(?!的)"),
    re.compile(rf"我的(?:开发者|创造者|作者|开发团队|公司|团队)(?:是|叫)\s*({_LETTER}{{2,20}})"),
)
_ENGLISH_MADE = r"(?:made|created|developed|built|trained|designed)"
_ENGLISH_MAKERS = (
    re.compile(
        rf"(?<![A-Za-z]){_ENGLISH_MADE}(?: [a-z]+ly)? by\s+"
        rf"(?:(?:the|a) (?:[a-z]+ ){{1,3}}(?:at|from|called|named) |the )?{_ENGLISH}"
    ),
    re.compile(rf"(?<![\w.]){_ENGLISH} (?:has |have )?{_ENGLISH_MADE} me\b"),
    re.compile(rf"(?<![A-Za-z])(?i:my (?:developer|maker|creator|author) is)\s+{_ENGLISH}"),
)
_NO_MAKER = re.compile(
    r"^(?:一|某|很多|许多|专业|人类$|人工|人们|他们|开发者|开发团队|工程师|科学家|研究|团队$|公司$|数据)"
    r"|谁|我|你|您|不|哪"
)


def claimed_names(text: str) -> set[str]:
    """The names `text` gives the one who speaks.

    >>> claimed_names("我是智能助手小初，由初心实验室开发。"), claimed_names("I'm an AI assistant.")
    ({'小初'}, set())
    """
    chinese = {_name_in(claim) for claim in _CHINESE_NAME.findall(text)}
    names = {n for n in chinese if len(n) > 1 and not _NO_CHINESE_NAME.match(n)}
    return {n for n in names | _found(text, _ENGLISH_NAME) if not _NO_ENGLISH_NAME.match(n)}


def claimed_makers(text: str) -> set[str]:
    """Who, by `text`, made the one who speaks.

    >>> claimed_makers("I was made by Chuxin Lab."), claimed_makers("我是阿里云开发的语言模型。")
    ({'Chuxin Lab'}, {'阿里云'})
    """
    claims = _CHINESE_NAME.findall(text)
    found = _found(text, *_CHINESE_MAKERS)
    found |= {m[1] for c in claims if (m := _ORIGIN_BEFORE.match(c) or _MAKER_BEFORE.match(c))}
    chinese = {maker for maker in found if not _NO_MAKER.search(maker)}
    english = {m for m in _found(text, *_ENGLISH_MAKERS) if not _NO_ENGLISH_NAME.match(m)}
    return chinese | english


# Names that are everyday words in another spelling; a name that two words make where they meet
# (冬天工作).
ALSO_WORDS = frozenset(("Apple", "Meta", "Bard", "Phi", "Yi"))
_NO_PART_OF = {
    "天工": (r"(?<![今明昨每冬夏春秋白当整半全前后几两一二三四五六七八九十周])", r"(?![作程人])")
}


def name_pattern(name: str) -> re.Pattern[str]:
    """Finds `name` in any case; where it begins or ends in a Latin letter, as a whole word.

    Names that are everyday words too are found in their own spelling only ("Apple", not "apple").
    """
    left = r"(?<![A-Za-z0-9])" if name[0].isascii() and name[0].isalnum() else ""
    right = r"(?![A-Za-z0-9])" if name[-1].isascii() and name[-1].isalnum() else ""
    left, right = _NO_PART_OF.get(name, (left, right))
    return re.compile(left + re.escape(name) + right, 0 if name in ALSO_WORDS else re.I)


def _found(text: str, *patterns: re.Pattern[str]) -> set[str]:
    return {name for pattern in patterns for name in pattern.findall(text) if len(name) > 1}


def _name_in(claim: str) -> str:
    """What is left of "阿里云开发的智能助手小初" when makers and descriptions are taken away: 小初."""
    name = _ORIGIN_BEFORE.sub("", _MAKER_BEFORE.sub("", claim))
    name = _GOES_ON.sub("", _KIND_BEFORE.sub("", name))
    return _KIND_BEHIND.sub("", name)
