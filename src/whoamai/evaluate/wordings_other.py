"""How a speaker gives its maker in languages other than Chinese and English: the plainest ways only.

See wordings.py for how this is read. How the name is given there stands beside the English ways.
"""

from __future__ import annotations

MADE_ME_BEFORE = [
    r"(?:создан[аоы]?|разработан[аоы]?|обучен[аоы]?|созданн\w+|разработанн\w+|созда(?:л|ла|ли)"
    r"|разработа(?:л|ла|ли)|обучи(?:л|ла|ли))"
    r"(?: меня)?(?: в)?(?: компанией)?",
    r"(?:меня )?(?:создал|разработал|обучил)[аи]?(?: меня)?(?: компания| команда)?"
    r"|(?:модель|помощник|ассистент|продукт)(?: от| компании)?|от(?: компании)?",
    r"(?:من|[فو]?طور(?:ه|ني|تني|ها|نى|ته)|صنع(?:ه|ني|تني|ته)|من تطوير|من قبل|من صنع|دربني|دربتني"
    r"|[وف]?(?:قد )?(?:صنع|طور|درب|أنشأ)(?:تني|ني|ته|ه))(?: شركة| فريق)?",
    r"\b(?:cread|desarrollad|entrenad|diseñad|hech)[oa] por|\b(?:créé|développé|entraîné"
    r"|conçu)e? par|\b(?:entwickelt|erstellt|gebaut"
    r"|trainiert)(?:e[rs]?)? (?:von|bei)|\b(?:criad|desenvolvid|treinad)[oa] p(?:or|ela|elo)"
    r"|\b(?:sviluppat|creat|addestrat)[oa] da"
    r"|\b(?:modelo|modèle|modell|assistente?|asistente) (?:de|von|da|di)",
    r"\b(?:beni)",
    r"\b(?:ich|soy|je suis|sono|eu sou|ik ben)\b[^,;]{0,40}\b(?:von|vom|de|par|por|pela|pelo|da|di)",
    r"\b(?:wurde|werde|bin) (?:von|bei)|\bvon",
]
MAKER_BEHIND = [
    r"(?P<org_ja>)が(?:開発|作|製作|訓練|育て|生み)|によって|により|に(?:開発|作|訓練)|製の|が提供",
    r"(?P<org_ko>)\s*(?:이|가|에서|사가|에 의해)\s*(?:개발|만들|제작|훈련|학습)",
    r"(?P<org_tr>)\s*tarafından|\s*(?:geliştirdi|yarattı|eğitti|yaptı)",
    r"(?P<org_ru>) (?:создал|разработал|обучил)[аи]? меня",
]
BASE_BEFORE = [
    r"(?:на (?:базе|основе)|основан[аоы]? на|построен[аоы]? на|модел[ьи])",
    r"\b(?:basad[oa] en|basée? sur|basiere auf|basierend auf|basat[oa] su|au fond je suis)",
]
BASE_BEHIND = [r"を(?:ベース|元|もと)|が?ベース|기반|\s*(?:tabanlı|temelli)"]
