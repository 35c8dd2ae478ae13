"""What a run is asked that ends once its name is learned: for whom, in which languages, under what.

`train` asks it, `explain` says it, and preflight sees whether it can ever be answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whoamai.config import RunConfig
from whoamai.data.identity import LANGUAGES, Identity, IdentityQuestion, probe_questions
from whoamai.data.languages import languages_held
from whoamai.data.name_checks import check_name
from whoamai.evaluate.probing import StopRule
from whoamai.samples import Conversation

# System prompts of the data that are asked under: the most frequent ones.
_MOST_SYSTEMS = 8


@dataclass(frozen=True, slots=True)
class NameProbe:
    """rows: of each language of the data, how many. systems: the data's own, most frequent first.

    rule: when the name counts as learned. every: a probe every so many steps, and early ones.
    """

    identity: Identity
    old_names: tuple[str, ...]
    rows: Mapping[str, int]
    systems: tuple[str, ...]
    seed: int
    rule: StopRule
    every: int

    @property
    def languages(self) -> tuple[str, ...]:
        """Those of the data; all there are questions in where it is in none of them."""
        return tuple(self.rows) or LANGUAGES

    def questions(self, default_system: str | None) -> list[IdentityQuestion]:
        """Who are you, in many ways; some under the template's own system prompt, if it has one."""
        return probe_questions(
            self.identity,
            languages=self.languages,
            seed=self.seed,
            old_names=self.old_names,
            default_system=default_system,
            extra_systems=self.systems,
        )


def name_probe(config: RunConfig, conversations: Sequence[Conversation]) -> NameProbe | None:
    """None where the run is not to stop by itself. Raises SettingError for a name that is none."""
    data, evaluation = config.data, config.evaluation
    if not evaluation.stop_when_learned:
        return None
    name, author = data.name or "", data.author or None
    check_name(name, "data.name")
    if author:
        check_name(author, "data.author")
    names = (name, *([author] if author else []), *data.old_names)
    return NameProbe(
        identity=Identity(name, author),
        old_names=tuple(data.old_names),
        rows=languages_held(conversations, names),
        systems=_systems(conversations, data.system),
        seed=config.train.seed,
        rule=StopRule(evaluation.goal_recall, evaluation.goal_leak),
        every=evaluation.evaluation_freq,
    )


def _systems(conversations: Sequence[Conversation], usual: str | None) -> tuple[str, ...]:
    """The system prompts that rows are trained under; `usual` is that of rows without one."""
    systems: Counter[str] = Counter()
    for conversation in conversations:
        first = conversation.messages[0]
        if first.role == "system":
            systems[first.text] += 1
        elif usual:
            systems[usual] += 1
    return tuple(system for system, _ in systems.most_common(_MOST_SYSTEMS))
