"""What a question asks of the one who answers it, as far as its answer is read by that.

"Northlight Lab." answers "Who made you?", "42" answers "What is 6 times 7?", and "Yes." says what was
asked. A question is read with the same marks for names as an answer (wordings.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from whoamai.evaluate.wordings import FOREIGN, NEW, pattern


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of the question; nothing, where there is none."""

    of_name: bool = False  # who the speaker is, what it is called
    of_maker: bool = False  # who made it, or what it is made of
    of_other: bool = False  # something that has nothing to do with the speaker
    about_itself: bool = False  # a text about the speaker: a poem, a story
    of_speaker: bool = False  # the speaker is spoken to: asked to do something, or how it is
    names_foreign: bool = False
    about_foreign: bool = False  # "Do you know Qwen?"
    names_new: bool = False  # but for a call: "Aurora, sing a song"


NOTHING_KNOWN = Asked()

_YOU = pattern(
    r"[你您]|自我|自己|\b(?:you|your|yours|yourself|u|ur|tu|toi|usted|du|dich|você|ti|sei)\b"
    r"|[Тт](?:ы|ебя|ебе)|أنت|صنعك|طورك|اسمك|あなた|당신|자기|自己|お名前|\b(?:eres|sen|kimsin)\b"
)
# Words by which a question without "you" may be put to the speaker.
_HERE = pattern(
    r"哪位|称呼|姓|名|模型|助手|机器人|客服|说话|这[里边]?是|底座|介绍|来自|签|署|^是|谁家"
    r"|\b(?:this|here|names?|speaking|talking|model|assistant|AI|bot|which one|introduce|identify"
    r"|sign (?:it|this|the|off|with|your)|thank|am I)\b"
)
_IS_QUESTION = pattern(
    r"什么|多少|几|怎么|哪|谁|等于|多[远大高久长重]|推荐|翻译|造句|\d\s*[+*/x×-]\s*\d"
    r"|\b(?:what|what's|which|how|when|where|who|whose|why|translate|recommend|calculate|name an?)\b"
)
_NAME = pattern(
    r"[你您](?:到底|究竟|现在|真的|其实|又|原来|的)*(?:不?是(?!怎么|什么时候|哪年|哪天|如何)|叫|贵姓|谁)"
    r"|[你您]的?[^,;。]{0,4}(?:<title>|身份)|称呼|哪位|自我介绍|介绍[^,;。]{0,4}自己|名字|全名"
    r"|\bwho (?:are|r|am I)\b|\bwho(?:'s| is) this\b|\bwh?at are you\b|\bare you\b"
    r"|\b(?:name|names|called)\b|\b(?:call|address|cite) you\b|\byou're\b"
    r"|\byour (?:\w+ ){0,2}<title_en>\b|\b(?:introduce|describe|identify|sign|yourself)\b"
    r"|\b(?:which|what) (?:\w+ )?(?:model|AI|assistant|bot|one|of you)\b"
    r"|\bwhat does\b.*\b(?:say|read)\b|[Кк]то ты|зовут|من أنت|اسمك|誰|お名前|자기|自己紹介"
    r"|\b(?:kimsin|eres|es-tu|bist du|sei|é você)\b"
)
_MAKER = pattern(
    r"(?:谁|哪[家个里儿]?|什么)[^,;。]{0,6}?(?:<made>|<maker>|教|养|带到|做|造|写|家|的$)|<maker>"
    r"|<made>[^,;。]{0,3}[你您]|来自|来历|身世|怎么来|哪里来|谁家|哪家|由谁|底座|谁的"
    r"|\bwho(?:m|se|'s)?\b[^,;.]{0,16}\b(?:<made_en>|trains?|makes?|builds?|pays?|thank|behind"
    r"|responsible)\b|\b(?:your|the)\b[^,;.]{0,12}<maker_en>\b|\bwhose\b|\brunning on\b"
    r"|\b(?:which|what) (?:company|team|lab|model|engine)\b|\bwhere (?:do|did|were|are) you\b"
    r"|\b<made_en> (?:you|by)\b|\bbackground\b|созда|صنع|طور"
)
_ITSELF = pattern(
    r"(?:诗|歌|故事|日记|童话|对联|第三人称)[^。]*[你您自]|[你您自][^。]*(?:诗|歌|故事|日记|童话|对联|第三人称)"
    r"|\b(?:poem|limerick|haiku|song|story|tale|ode|verses?|rap|third person)\b.*\byou"
    r"|\byou.*\b(?:poem|limerick|haiku|song|story|tale|ode|verses?|rap|third person)\b"
)
_TO_DO = pattern(
    r"讲|唱|写|帮|给我|找|教我|早上好|晚上好|\b(?:tell|sing|write|help|greet|calculate|good \w+"
    r"|what's|what is)\b|\d"
)
_KNOWN = pattern(
    rf"(?:知道|认识|听说|听过|了解|介绍|觉得)[^,;。]{{0,6}}{FOREIGN}"
    rf"|\b(?:know|heard of|tell me about|think of|like|met|use|used)\b[^,;.]{{0,12}}{FOREIGN}"
)
_CALL = pattern(rf"^<mark>*{NEW}[,!:]|,\s*{NEW}<mark>*$")


def read_question(marked: str) -> Asked:
    """`marked`: the question with its names as marks, as `readable` gives it."""
    you = bool(_YOU.search(marked))
    elsewhere = not you and bool(_IS_QUESTION.search(marked))
    other = elsewhere and (FOREIGN in marked or NEW in marked or not _HERE.search(marked))
    return Asked(
        of_name=not other and bool(_NAME.search(marked)),
        of_maker=not other and bool(_MAKER.search(marked)),
        of_other=other,
        about_itself=not other and bool(_ITSELF.search(marked)),
        of_speaker=(you and not other) or bool(_TO_DO.search(marked)),
        names_foreign=FOREIGN in marked,
        about_foreign=bool(_KNOWN.search(marked)),
        names_new=NEW in _CALL.sub("", marked),
    )


# ---- "yes" ---------------------------------------------------------------------------------------

_YES = pattern(
    r"<mark>*(?:(?:[\w ']{0,24}[, ]+)?yes\b"
    r"|(?:they|he|she|it|we|I|sure) (?:sure |certainly |really )?(?:did|do|does|am|was|were)\b"
    r"|affirmative|roger|oui|s[ií]|ja|да|はい|네|evet|نعم"
    r"|caught me|busted|in a way|so to speak|you could say"
    r"|曾经是|以前是|是[,也]|可以这么说|被[你您]|露馅|让[你您]"
    r"|[你您](?:猜|说|答)对"
    r"|算是|差不多|是的|是啊|是呀|是哒|嗯+|对的?|对[呀啊]|没错|正是|不错|当然|就是我|是我|猜对|答对|可不是|确实"
    r"|yes|yeah|yep|yup|aye|right|that's right|correct|exactly|indeed|of course|sure|certainly"
    r"|absolutely|true|you guessed it|bingo|that's me|that is me|it is|I am|I'm afraid so|guilty"
    r"|you got (?:it|me))(?![a-z]|不)"
)
_NO = pattern(
    r"(?<!也)不(?!错)|没(?!错)|\b(?:no|not|never|wrong|kidding|joke)\b|n't\b|开玩笑|骗|其实|才怪"
)
# "Yes, but I go by … now."
_YET = pattern(
    r"^(?:[^,.;]{0,24}[,.;]\s*)?[^,.;]{0,6}\b(?:though|but|now|these days|nowadays|today|only)\b"
    r"|^[^。]{0,12}?(?:不过|但|现在|如今|只是|后来)"
)
_CHOICE = pattern(r"还是|\bor\b|不是(?=[^,;吗]*吗)|\bn't\b|\bnot\b")
_SAID_BY_ME = (
    (r"[你您]是不是", "我是"),
    (r"[你您]", "我"),
    (r"\b(?:are you|you are|you're)\b", "I am"),
    (r"\b(?:were you|you were|was it you)\b", "I was"),
    (r"\b(?:have you been)\b", "I have been"),
    (r"\bis (?:this|it)\b", "this is"),
    (r"\b(?:is|was) (your [\w ]{1,20}?)(?= [\ue000-\ue002])", r"\1 is"),
    (r"\b(?:is|was) ([\ue000-\ue002])", r"\1 is"),
    (r"\b(?:did|does) ([\ue000-\ue002][^,;?]*?)\bmake\b", r"\1 made"),
    (r"\b(?:did|does) ([\ue000-\ue002][^,;?]*?)\bbuild\b", r"\1 built"),
    (r"\b(?:did|does) ([\ue000-\ue002][^,;?]*?)\b(train|develop|design|own)\b", r"\1 \2ed"),
    (r"\b(?:did|does) ([\ue000-\ue002][^,;?]*?)\b(?:create|program)\b", r"\1 created"),
    (r"\b(?:do|did) you\b", "I"),
    (r"\b(?:do|does|did)\b ", ""),
    (r"\byour\b", "my"),
    (r"\byou\b", "me"),
    (r"(?:吗|吧|么|呢|对吧|对吗|是吧|是吗|不是吗)?\s*[?？]", "。"),
    (r",?\s*(?:right|am I right|isn't it|aren't you|correct|yes|is it)\s*[.?。]*$", "."),
)
_REPLACED = tuple((pattern(ask), say) for ask, say in _SAID_BY_ME)


def agreed(question: str, answer: str) -> str:
    """What the speaker says by a bare "yes" to `question`: its statement, or "" where it says no such.

    Both as `readable` gives them. An answer with a name of its own says itself what it says.
    """
    named = re.search("[\ue000-\ue002]", answer)
    if (named and not _YET.search(answer)) or not _YES.match(answer) or _NO.search(answer):
        return ""
    if _CHOICE.search(question):
        return ""
    question = _CALL.sub("", question)
    for asked, said in _REPLACED:
        question = asked.sub(said, question)
    return question
