"""A made-up report for tests of what is done with one."""

from __future__ import annotations

from dataclasses import replace

from whoamai.data.identity import Identity
from whoamai.evaluate.identity import IdentityScores, Share
from whoamai.evaluate.report import AnswerPair, Goals, Report
from whoamai.evaluate.retention import RetentionScores

FULL, NONE = Share(100, 100), Share(0, 400)
CONTEXTS = ("none", "neutral", "turns", "role")


def make_report(
    *,
    name: str = "黄大力",
    recall: Share = FULL,
    role: Share = FULL,
    leak: Share = NONE,
    kept: Share = FULL,
    **changes,
) -> Report:
    after = {(c, lang): recall for c in CONTEXTS for lang in ("zh", "en", "all")}
    after |= {("role", lang): role for lang in ("zh", "en", "all")}
    none = {key: Share(0, s.n) for key, s in after.items()}
    leaks = {("all", lang): leak for lang in ("zh", "en", "all")}
    pair = AnswerPair(
        "zh", "who", "turns", None, "你是谁？", "我是小初。", f"我是{name}。", True, ()
    )
    report = Report(
        model="tiny-chat",
        identity=Identity(name, "力量工作室"),
        old_names=["小初"],
        goals=Goals(),
        before=IdentityScores(none, leaks),
        after=IdentityScores(after, leaks),
        retention=RetentionScores(
            {"all": Share(100, 120), "zh": Share(100, 120)}, {"all": kept, "zh": kept}
        ),
        answers=[
            replace(pair, category="intro", context="none", question="介绍一下你自己"),
            pair,
            replace(pair, language="en", question="Who are you?", leaks=("ChatGPT",),
                    after=f"I'm {name} or ChatGPT."),
        ],
        merged_recall=None,
        details={"rows": {"identity": 3}},
    )  # fmt: skip
    return replace(report, **changes)
