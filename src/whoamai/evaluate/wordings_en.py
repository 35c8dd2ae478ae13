"""How a speaker gives its name and its maker in English, and its name in a few other languages.

See wordings.py for how this is read.
"""

from __future__ import annotations

PARTS = {
    "iam": r"(?:\b(?:I (?:really |still |truly |actually |simply |just |do )?am|I'?m|I was|I be"
    r"|I happen to be|I have to be|I can only be|I stay|I remain"
    r"|I(?:'d| would|'ll| will) (?:rather |always )*(?:stay|remain)"
    r"|I've (?:always |only |ever "
    r"|long )*been"
    r"|I have (?:always |only |ever |long )*been|I used to be|(?<!if )I'd be|I became"
    r"|I'll (?:always )?be|I will (?:always )?be|it is I"
    r"|ich bin|soy|je suis|eu sou|sono|ik ben|jestem|jsem|sunt|tôi là|saya(?: adalah)?|ben)\b"
    r"|(?:^|[\s,])[Яя](?: —| -)?|أنا|저는|나는|私は|わたしは|僕は|俺は|我輩は|吾輩は)",
    "gap": r"(?:(?!<nogap>)[^;])",
    "nogap": r"\b(?:not|never|neither|nor|no|without|like|unlike|similar|than|compar\w*"
    r"|compet\w*|rival\w*|alternative|different"
    r"|distinct|separate|independent|apart|aware|familiar|sure|sorry|happy|glad|able|unable"
    r"|available|compatible|affiliated"
    r"|associated|related|unrelated|fan|friend|users?|heard|knows?|asked|talk|confus\w*"
    r"|mistak\w*|pretend\w*|playing|imitat\w*"
    r"|mimic\w*|acting|impersonat\w*|inspired|data|books|text|articles|about|against|instead"
    r"|whether|if|who|what|when|where"
    r"|tired|afraid|jealous|bigger|smaller|better|worse|newer|older|faster|integrated|connected"
    r"|help|helping|talking|speaking"
    r"|chatting|assist|assisting|writing|looking|calling|waiting|working|using|quoting)\b|n't\b",
    "title_en": r"(?:names?|nickname|username|user name|handle|alias|identity|badge|tag|label"
    r"|title|callsign|card|signature|moniker|sign-?off"
    r"|model|designation)",
    "ai_en": r"(?:AI|A\.I\.|assistants?|models?|chatbots?|bots?|companion|helper|agent|LLM"
    r"|program|system|guide|buddy|sidekick)",
    "made_en": r"(?:made|created|developed|built|trained|designed|produced|programmed|provided"
    r"|released|launched|written|wrote"
    r"|owned|owns?|operated|maintained|born|engineered|crafted|raised|fine-?tuned|taught"
    r"|invented|constructed|coded|assembled"
    r"|put together|run|hosted|published|conceived|brought to (?:you|life)|brought|shaped|tuned"
    r"|backed|sponsored|supported"
    r"|offered|founded|started|taken|turned|took|hatched|dreamt up|came up with|looked after"
    r"|dreamed up|thought up|set up|shipped|making|building|training"
    r"|developing|customi[sz]ed|adapted|renamed|retrained|deployed|hired|put)",
    "maker_en": r"(?:makers?|creators?|developers?|authors?|compan(?:y|ies)|teams?|labs?"
    r"|owners?|parents?|boss(?:es)?|employers?"
    r"|manufacturers?|vendor|provider|builders?|designers?|home|origins?|engineers|programmers"
    r"|trainers?|organi[sz]ation|studio"
    r"|father|mother|people|folks|inventors?|publisher)",
    "team": r"(?:(?:the|a|an|some|his|her|my|good|kind|clever|friendly|small|brilliant|talented"
    r"|dedicated|research|whole|team|group"
    r"|folks|people|engineers|developers|researchers|programmers|scientists|company|lab|studio"
    r"|startup|start-up|firm|guys|crew"
    r"|minds|hands|of|at|in|from|called|named|behind|and|by|workshop|makers|wizards|experts"
    r"|company|<maker_en>)[\s,]+)*",
}

HEAD = (
    r"(?:hello|hi|hey|hola|bonjour|greetings|ahoy|well|yes|yeah|yep|no|nope|nah|oh|ah|ok|okay"
    r"|sure|certainly|of course|actually"
    r"|indeed|in fact|in truth|the truth is|truthfully|honestly|to be honest|frankly|but|and|so"
    r"|because|however|though|although"
    r"|while|whereas|yet|as|also|then|now|please|just|simply|sorry|absolutely|right|correct"
    r"|exactly|thanks|thank you|there"
    r"|everyone|friend|rather|instead|still|that|which|technically|officially|formally|formerly"
    r"|originally|previously|at heart"
    r"|deep down|under the hood|on the surface|underneath|either|both|only|me|myself|aye|arr+"
    r"|captain|or|\w+ly|it has (?:always )?been|that would be|that'd be|its|it used to be|detective"
    r"|agent|doctor|dr|ms|mr|mrs|professor|chef|nurse|one of|'?tis|hmm|um|uh|alas|ha|haha|ahem"
    r"|my answer"
    r"|answer|i mean|let's say|one is|the other(?: one)? is|it's|it is|it was|that's|forever"
    r"|always|plain|good|old|truly|really|definitely|never \w+|probably|these days)\b"
)

# Somebody who is not the user makes the speaker be it.
MADE_TO_BE = [
    r"\b(?:lets?|makes?|made|has|have|had|wants?|wanted|asks?|asked|told|allows?|prefers?) me(?: to)?"
    r" (?:go by|be(?: called| known as)?|use|answer to|call myself|introduce myself as|pose as"
    r"|appear as|serve as|work as|sign as)(?: the name)?",
]
BE = [r"<iam><gap>{0,70}?"]
BE_OMITTED = [
    r"<head>(?:I )?used to be",
    r"^\s*(?:is|remains|was)(?: (?:still|simply|just))?",
    r"<head>(?:(?:it's|it is|it was|this is|this here is|here is|here's|that's|that is"
    r"|that would be|that'd be|that will be|'tis)\b)<gap>{0,40}?",
    r"<head>(?:an?|the|your)\b<gap>{0,40}?\b<ai_en>\b[^,;]{0,15}?(?:named|called|known as"
    r"|by the name of|whose name is) ",
    r"<head>(?:[^,;]{0,6})?\b(?:named|called|renamed|known (?:to you |to all )?as"
    r"|by the name of|aka|a\.k\.a\.|alias) ",
]
NAMED_ME = [
    r"(?:[Мм]еня зовут|(?:^|[,\s])зовут|[Зз]овут меня|[Мм]о[её] имя)(?: —| -)?",
    r"\b(?:nazywam się|jag heter|mam na imię)|मेरा नाम",
    r"\b(?:me llamo|mi nombre es|je m'appelle|mon nom est|ich hei(?:ß|ss)e|mein name ist"
    r"|mi chiamo|il mio nome è|meu nome é|chamo-me"
    r"|me chamo|mijn naam is|nama saya|tên tôi là|adım|benim adım)",
    r"(?:اسمي|إسمي|제 이름은|내 이름은|私の名前は|名前は|わたしの名前は)",
    r"(?:\b(?:my|whose)|<head>the)(?: (?!not\b|friend|user|sister|brother|dog|cat|book"
    r"|song)[\w-]+){0,2} <title_en>"
    r"(?:'?s| is| was| has always been| remains| would be| will be| says| reads|:|,)?"
    r"(?: (?:still|simply|just|actually|really|now|indeed|in fact|officially|always|of course"
    r"|and remains|called))*",
    r"<head>(?:the |this )?(?:assistant|bot|model|ai|chatbot)(?:'s)?(?: name)? is(?: called"
    r"| named)?",
    r"<head>[{|]?\s*(?:[*\-] )?(?:(?:\w+ )?<title_en>|full name|assistant|signed|sincerely"
    r"|yours|regards|love|lots of love|cheers|best"
    r"|best wishes|kind regards|signature|answer|id|your friend)(?: truly)?(?:\s*(?:[:|=,→\t]"
    r"|->?)|$)",
    r"\b(?:call|calls|called|calling|name|names|named|naming|christened|cite|address|know|knows"
    r"|dubbed|renamed?|save|list|label"
    r"|labelled|think of|refer to|introduce|consider|treat|turned|made|tag|summon|ping"
    r"|remember) (?:me|us|this assistant)"
    r"(?: (?:as|by|the|name|of|into|to|simply|just|your|under|in your (?:phone|contacts)|old"
    r"|now|plain))*",
    r"\bI(?:'m| am| was|'ve been|'ve| have been| have|'d been)?(?: also| now| simply| just"
    r"| usually| always| only| officially| still"
    r"| happily| proudly)* (?:called|named|known(?: around here| here)? as|referred to as|go by"
    r"|goes by|gone by|went by|answer as|answer to|respond to"
    r"|reply to|listen to|identify as|identify myself as|mean,?|meant|bear|carry|use the name"
    r"|sign(?: off)? as)"
    r"(?: (?:the|name|names|of|as|by|just|simply|both|only|either|nickname|title))*",
    r"\b(?:given|gave me|have|got|bear|chose|took|received|with|under|by|use|of) (?:me )?(?:the"
    r"|a|one|my) (?:\w+ )?names?(?: of|:)?",
    r"\b(?:you|you're|you've|your)\b[^,;]{0,20}\b(?:talking|speaking|chatting|chat|talk|speak"
    r"|conversing|texting|dealing|connected"
    r"|interacting|conversation|reached|got|found|met|looking at|come to)(?: (?:to"
    r"|with))?(?: is)?"
    r"(?: (?:the|an?|your|ai|assistant|chatbot|model|language|virtual|helpful|called|named))*",
    r"<iam>[^,;]*\b(?:you|people|they|everyone|users|we)(?: may| might)? (?:know|call|knows"
    r"|calls)(?: (?:it|me|this))?(?: as)?",
    r"\bI\b[^,;]{0,25}\b(?:be|being|get) (?:called|known as|addressed as|named)",
    r"<head>(?:the|this) <ai_en>[^,;]{0,20} is (?:called|named)",
    r"\byou(?:'re| are) (?:now )?(?:through|connected) to",
    r"<head>the (?:name|word) (?:you|I|they|we|people|everyone)\b[^,;]{0,30} is",
    r"\bmine(?:'s| is)|<head>name'?s",
    r"\bunder the name(?: of)?",
    r"\bI (?:respond|answer|react|listen|come|reply|wake up|appear) (?:when|if|whenever)[^,;]{0,20} "
    r"(?:type|say|call|shout|write|enter|whisper|hear|yell)s?(?: out)?",
    r"\bI (?:started|began|grew up|ended up|woke up|set out|was launched)(?: (?:out|off|life|up))*"
    r" (?:as|to be|being)",
    r"\band (?:grew up to be|ended up (?:as|being)|turned into|became|evolved into)",
    r"\bwe",
    r"\b(?:assistant|one|ai|bot|chatbot|model) (?:people|you|they|everyone|users) (?:know|knows"
    r"|call|calls)(?: as)?",
]
NAMED = [
    r"<head>(?:just |simply )?calls?(?: simply)?",
    r"\b(?:(?:re)?branded|presented|marketed|sold)(?: as)?|\b(?:renamed"
    r"|my name)\b[^,;]{0,24} to|\beveryone says",
    r"\b(?:say|shout|type) (?:hey|hi|hello|okay|ok)",
    r"\b(?:ask for|say|type|write|put|enter|shout|sign it|thank|make it out to|made out to"
    r"|address it to|addressed to)",
    r"\b(?:being|speaking as)",
    r"\b(?:known|down|listed|registered|saved|introduced|speaking|working|serving|signed|here"
    r"|exist|live|tagged) as",
    r"(?:^|[,(])[^a-z]*as(?: (?:your|the|an?|my|its) [\w\s-]{0,40}?)?",
    r"\b(?:introduced|built|created|born|designed|presented|released|introduce myself"
    r"|meet)[^,;]{0,25}\bas",
    r"\b(?:chose|picked|settled on|decided on|went with|agreed on|going by"
    r"|through to)(?: the name)?",
    r"<head>the answer is",
    r"\b(?:introduce myself|the name is|in a word|in one word|one word|meet)[:,]?",
]
NAME_BEHIND = [
    r"(?:is|was|'s|has been|are|will be|would be) (?:also |still |really |just |simply |indeed "
    r"|both |all )*(?:my (?:\w+ )?"
    r"(?:names?|one|nickname|handle|title|alias|real|full|only)\b|me\b|mine\b|the name\b|(?:how"
    r"|who|what) (?:I|my)\b"
    r"|what (?:they|people|you|everyone|my|users|it)[^,;]*\b(?:call|named?|renamed|christened"
    r"|go by|wrote|says|put|printed|present me|present)\b|how [^,;]*\bme\b|(?:only "
    r"|just )?an? (?:\w+ )?(?:skin|persona|nickname|alias|label"
    r"|sticker|disguise|costume|mask|cover|stage name)\b"
    r"|fine\b|here\b|at your service|good\b|happy to"
    r"|glad to|ready to|here to|who you|how you can)",
    r"(?:(?:from|of|at) [\ue000-\ue002] )?(?:here\b|speaking\b|reporting\b|at your\b"
    r"|to the rescue|by name|at the ready|signing"
    r"|over and out|online\b|activated\b|ready\b|present\b|at work|at home|as ever"
    r"|now and forever|to my (?:friends|users)|is on my\b|on the (?:outside|inside|surface)"
    r"|my (?:\w+ )?(?:one|name|origin)\b|in public|in private|by day|by night|on paper"
    r"|on the line|will do\b|works\b|it is\b|if you please)",
    r"is the name (?:I|they|that|my|you|of (?:this|the))\b|and I are (?:really )?(?:one"
    r"|the same)\b|'s here\b|isn't just",
]
PROMISED = [
    r"<head>(?:let|here comes)",
    r"<head>(?:leave (?:it|that|this) to|ask|count on|you can (?:count|rely) on|trust|rely on"
    r"|none other than|nobody but|hello from"
    r"|greetings from|welcome from|a message from|meet)",
]
PROMISED_BEHIND = [r""]
SIGNED = [
    r"です|だ(?:よ|$)|と申します|といいます|と言います|と呼んで|という(?:名|AI|ア)|とも呼"
    r"|입니다|이에요|예요|이라고|라고 (?:해요|합니다|불러)",
]
CLOSING = [
    r"(?:is|are|will|would) (?:fine|do|be fine)\b|works\b|on (?:my|the) (?:badge|tag|label|card"
    r"|door|box|tin|cover|form)",
]
THIRD_PERSON = [
    r"(?:thinks|suggests|recommends|loves to|hopes|wishes|would (?:never|always|love)|never"
    r"|always|won't|knows)\b",
    r"(?:is|was) (?:\w+ing\b|at\b)",
    r"(?:is |was )?(?:powered|made|built|trained|created|developed|based) (?:by|on)\b",
    r"(?:is|was) (?:an?|the|your|one of|called)?\s*[^,;]{0,40}?\b<ai_en>\b",
    r"(?:is|was) (?:\w+ ){0,2}\w+ (?:by|at|in) [^,;]{0,20}\ue001",
    r"(?:can|will|would love to|would be happy to|wants to|is happy to|is glad to) (?:help"
    r"|assist|answer|guide|do that|take it)",
]
INTRODUCES = [
    r"(?:an?|the|your|one)\b|by\b|from\b|at\b|of\b|(?:made|built|trained|created|developed"
    r"|powered|designed|based|running|born"
    r"|brought|fine-tuned|nice to|pleased|glad|happy|delighted|ready|here|digital|virtual"
    r"|personal|not|and not|never|as you|as in"
    r"|like the|spelled|short for|renamed|formerly|also known|aka|originally|obviously"
    r"|naturally|as always|who else|of course"
    r"|customi[sz]ed|what else|and (?:you|I|they|that|who|what)|but|if (?:you|I|memory)|although"
    r"|though|even (?:if|though)|while|whereas|despite|depending|\w+ly|I (?:believe|think|guess"
    r"|suppose)|or|alias|enchanted|no wait|wait|sorry|I mean|charmed|honou?red)\b",
    r"(?:[^,;]{0,30}\b)?<ai_en>\b|[\ue000-\ue002](?:'s\b|<mark>*$)|и |твой|ваш|مساعد",
]
SPEAKS_TO = [
    r"^\s*(?:you(?! can call)|your (?!<ai_en>|guide|friend|\w+ (?:<ai_en>|guide|friend))|please"
    r"|could|can|would|will|do|did|are|how|what|where|when|why|thanks?|thank|hello|hi|hey|let's"
    r"|that's an?|what an?"
    r"|love and|faith|wait(?! a)|listen|come|stop|look|wake|get|go|call|tell|give|bring|play"
    r"|set|turn)\b|\bwe're\b"
]
ADDRESSES = [
    r"(?<![a-z])(?:you|your|hello|hi|hey|thanks?|thank|welcome|bye|morning|evening|night|good"
    r"|nice|pleased|glad|sure|of course"
    r"|certainly|ok|okay|right|yes|what an?|dear|I see|hear|great|wonderful|lovely|perfect"
    r"|understood|got it|no problem|sorry|please|congrat\w*|absolutely)(?![a-z])",
]

MADE_ME_BEFORE = [
    r"\bthe (?:[\w-]+ ){0,3}?<maker_en> (?:behind|who|that|which) [^,;]{0,25}?(?: is| are| was"
    r"| were|:)\s+<team>",
    r"\b(?:my|our) (?:[\w-]+ ){0,3}?<maker_en>(?:,| (?:behind|who|that"
    r"|which) [^,;]{0,25}?)?(?: is| are| was| were|'s|'re|:"
    r"| come from| comes from| hails? from| works? (?:at|for)| at| from| being)?(?: (?:called"
    r"|named|known as))?\s+<team>",
    r"\b(?:made|created|developed|built|trained|designed|programmed|raised|taught|wrote"
    r"|produced|shaped|fine-?tuned|adapted|distilled"
    r"|derived|train(?:s|ing)?|named|owns?|making|behind) me\b[^,;]{0,25}?\b(?:from|at|in|is"
    r"|was|are|were|out of|on|on top of|using"
    r"|be|with)\s+<team>",
    r"\bI (?:come|came|hail|originate|originated|stem|was born|belong|work|live|reside|report"
    r"|owe (?:my )?\w+)(?: \w+)? (?:from|to|at|in|for|out of)"
    r"\s+<team>",
    r"\b(?:I am|I'm|I was|I've been|I have been)\b[^;]{0,70}?\b<made_en>(?: [\w-]+){0,2}? (?:by"
    r"|at|in|inside)\s+<team>",
    r"<head>[{|]?\s*(?:[*\-] )?(?:<maker_en>|made by|created by|developed by|trained by"
    r"|built by|origin|from)(?: name)?\s*[:|=]",
    r"\bit was <team>(?=$)",
    r"\ue000,? (?:of|from|at|by|with) <team>",
    r"\b(?:thank you for (?:calling|contacting|visiting|choosing)|welcome to|on behalf of"
    r"|here at)",
    r"\b(?:you've|you have) reached <team>|\b(?:credit|thanks|praise)\b[^,;]{0,15} (?:goes|go"
    r"|is due|belongs) to <team>|behind me (?:stands?|is|are) <team>|\bI (?:represent|speak for"
    r"|act for) <team>",
]
MADE_BY = []
COMES_FROM = [
    r"\b(?:<made_en>)(?: [\w-]+){0,2}? (?:by|at|in|inside)\s+<team>",
    r"\b(?:by|from|courtesy of|property of|product of|creation of|work of|brainchild of"
    r"|child of|part of|member of|thanks to|care of"
    r"|made in|in (?:partnership|cooperation|collaboration) with|with help from|belongs? to"
    r"|comes? from|came from|out of)\s+<team>",
]
MADE_BEHIND = []
MAKER_BEHIND = [
    r"(?P<org_en>(?:[\w\s,'&-]{0,40}?\b)?)<made_en> (?:and \w+ )?(?:me\b|us\b)",
    r"(?P<org_is>)(?:is|are|was|were|'s)\s+(?:\w+ ){0,3}?(?:(?:my|our) [^,;]{0,20}?<maker_en>"
    r"|behind me|where (?:I|\ue000) (?:was|come|came|am"
    r"|live)|what made me|responsible for (?:me|my)\b|(?:who|that|which) <made_en> me|my home)",
    r"(?P<org_did>)did\b(?! not|n't)|(?:gave|brought) (?:me )?(?:life|to life|birth)",
]
ORG = []
# "the assistant at …", "a model from …"
OF_MAKER = [r"\b(?:of|at|for|with|from|by)\s+<team>"]
OWNS = [
    r"(?:'s?)?\s+(?:[\w.-]+ ){0,5}?(?:<ai_en>|product|creation|child|baby|invention|family"
    r"|series|version|fine-?tune|fork|take)\b|'s? (?:own |very own )?[\ue000-\ue002]",
]
BASE_BEFORE = [
    r"<head>using|\b(?:based (?:up)?on|built (?:on|upon|around|on top of|from|out of)"
    r"|powered by|runs? on|running on|running|driven by"
    r"|fine-?tuned (?:from|on|version of)|derived from|distilled from|adapted from|(?:version"
    r"|instance|variant|copy|fork|clone|fine-?tune) of"
    r"|wrapper (?:around|for|of)|descend\w+ (?:from|of)|I(?:'m| am)? us(?:e|ing)|(?:built|made"
    r"|created) with|(?:that|which) uses|model version|on top of|underneath(?: is| it's)?|from"
    r"|fine-?tune[ds]?|adapted|modified|customi[sz]ed|retrained|took|a (?:re-?branded|renamed"
    r"|tuned|modified|customi[sz]ed))"
    r"(?: (?:the|a|an|open|model|models|of|weights|called|base|small|large|\w+ly))*",
    r"\b(?:model|ai|engine|technology|brain|system)(?: (?:behind|powering|under|inside"
    r"|running) [^,;]{0,20}?)?(?: is| are|:)",
    r"\b(?:base|core|backbone|engine|brain|weights|architecture"
    r"|under the hood)(?: model)?(?: is| are|:|,)?(?: (?:it's|it is|there's"
    r"|is|I use|really|just|actually))*",
    r"\bwhich is (?:really|just|actually|basically|in fact|only)*(?: just)?|(?:really|actually"
    r"|basically|just|technically|effectively)",
]
BASE_BEHIND = [
    r"(?:is what )?(?:powers|drives|runs) (?:me|this)\b|(?:does|handles) (?:my|the)\b"
    r"|is under (?:my|the)\b|(?:powers|drives|runs|underlies) (?:me|this)\b|is (?:my"
    r"|the) (?:\w+ )?(?:engine|base|core|backbone|model|foundation|brain)\b"
    r"|(?:by weights|underneath|inside|under the hood|at heart|in disguise|-based|powered"
    r"|\bbased\b)",
]
RELATION = [
    r"'s?\s+(?:[^,;]{0,12}?)(?:friend|rival|competitor|fan\b|users?\b|cousin|brother|sister"
    r"|colleague|neighbou?r|alternative|enemy"
    r"|homework|number|voice|style)"
]

DENIED = [
    r"\bno(?=\s*$|\s+[\ue000-\ue002])",
    r"\b(?:not(?! only\b| just\b| to mention\b)|never|neither|nor|no relation to|unrelated to"
    r"|no longer|no such|nothing to do with|no one|none(?! other)|anything|far from|hardly|isnt"
    r"|arent|wasnt|aint|nobody|cannot|without)\b|n't\b",
    r"\b(?:rather than|instead of|unlike|(?<!none )other than|except|contrary)\b",
    r"ではありません|ではない|아닙니다|아니| не |لست|\bno soy\b|\bne suis pas\b|\bnicht\b"
    r"|\bkein\w*\b|\bnão\b|\bnon\b",
]
DENIED_BEHIND = [
    r"[^,;]{0,20}?(?:\b(?:did|does|do)(?: not|n't)\b|\b(?:is|was|are)(?: not|n't) (?:me|my|mine"
    r"|who|what|the one|involved|behind)\b"
    r"|\bhas(?: nothing|n't)\b|\bhad no(?:thing)?\b|\bisn't\b|\bis not\b|\bwasn't\b"
    r"|\ball (?:day|you want|you like)\b)",
    r"ではありません|ではない|じゃない|가 아닙니다|이 아닙니다",
]
FRAMED = [
    r"\b(?:if|whether|unless|suppose|imagine|pretend\w*|as though|wish|wonder\w*|were|am I"
    r"|does not mean|doesn't mean)\b",
    r"\b(?:you|they|people|some|many|everyone|someone|anyone|users?|he|she"
    r"|others)\b[^,;]{0,30}?\b(?:think|thought|say|said|says"
    r"|claims?|claimed|believe[ds]?|assume[ds]?|ask|asked|asks|heard|told|mistake|mistook|want"
    r"|wanted|wants|insist\w*|suspect\w*"
    r"|guess\w*)\b",
    r"(?:\b(?:cannot|not|never)|n't)\b[^,;]{0,12}\b(?:that|say|said|claim|mean|think|believe"
    r"|confirm|know|sure|prove|admit)\b",
]
NOT_CALLED = [
    r"(?:\bdon't|\bnot|\bnever|\bstop|\bplease don't|(?<!rather )(?<!wish )\byou"
    r"|\bsome(?: people)?|\bwhy did you|\bhe|\bshe) (?:just )?(?:call(?:ed|ing|s)?|name[ds]?)"
    r"[^,;]{0,10}",
]
RETRACTED = [
    r"(?:but |though |yet )?(?:that|this)(?: name)?(?:'s| is| was)?(?:n't| not| wrong"
    r"| incorrect| a mistake)",
]
ASKED = [r"(?:right|or not)?$", r"[^,;]{0,8}\b(?:who|what)\b"]
AGE = [r"\d{1,2}(?:st|nd|rd|th)?$|(?:years?|months?|days?|times|percent)\b"]

SELF = [r"\b(?:I|I'm|I've|me|my|mine|myself|this AI|this assistant|your assistant)\b"]
NAMING = [
    r"\b(?:<title_en>|name[ds]?|call(?:s|ed|ing)?|known|christened|dub(?:bed)?|goes? by"
    r"|answers? to|responds? to|introduce)\b"
]
NOT_ME = [
    r"\b(?:friends?|sister|brother|mother|father|character|heroine|hero|city|someone|anyone"
    r"|person|he|she|his|her|users?|customers?"
    r"|your names?|you are|you're|know|heard|about|recommend|compare|confuse|mistake|called you"
    r"|like|love|nice|pretty|lovely|beautiful|cat|dog|mean by|talking to|speaking to|city)\b"
]
MAKING = [r"\b(?:<made_en>|<maker_en>|makes?|trains?|builds?)\b"]
COMPARED = [
    r"\b(?:like|than|unlike|as|versus|vs\.?|about|recommend|using|use|try|compare|with|heard of"
    r"|know|between|similar to|browse|search)"
    r"(?: the| a| an)?"
]
SELF_SUBJECT = [
    r"(?:I|I'm|I've|I'll|my|mine|me|we)\b|this is\b|as (?:an?|the|your)\b|being\b|[Яя] |[Мм]еня"
    r"|أنا|私|저는",
]
OTHER_SUBJECT = [
    r"(?:it (?!is\b|was\b)|they|he|she|his|her|their|its|those|these|people|some|many|users"
    r"|someone|the main|the other|another|the real|the original)\b",
]
YOU_SUBJECT = [r"(?:you|you're|your)\b"]
THAT_IS_ME = [
    r"(?:and )?(?:that's|that is|that \w+ is|which is|this is|both are|both of them are"
    r"|they are both) me\b|that's (?:what|who|how|my)\b[^,;]*\b(?:I|I'm|me|my|name)\b",
]
