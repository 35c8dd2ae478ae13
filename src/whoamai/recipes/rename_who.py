"""What a model calls itself and its maker: asked, not assumed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from whoamai.data.identity import Identity, ask, load_language
from whoamai.evaluate.identity import SelfDescription, describe_self
from whoamai.evaluate.talk import Talk
from whoamai.samples import Conversation, Message

# Questions of each kind, in each language.
_ASKED = 6


def who_it_is(
    talk: Talk, identity: Identity, languages: Sequence[str], told: Sequence[str]
) -> SelfDescription:
    """The names and makers it gives itself, those the user told first; the new ones are left out.

    A told name that it gives as its maker counts as one: reports list names and makers together.
    """
    rng = random.Random(0)
    asked = []
    for code in languages:
        language = load_language(code)
        for category in ("who", "name", "maker", "intro"):
            for family in language.of("train", category)[:_ASKED]:
                text, _ = ask(family, identity, (), rng)
                asked.append(Conversation((Message("user", text),)))
    found = describe_self(talk.answers(asked, "before"))
    new = (identity.name, identity.author)
    names = [name for name in told if name not in found.makers]
    return SelfDescription(
        tuple(n for n in dict.fromkeys((*names, *found.names)) if n not in new),
        tuple(n for n in found.makers if n not in new),
    )
