"""How often a reconstructed question is the one that was really asked, and how fast they are made.

    python benchmarks/reconstruct_questions.py LOST FIXED [--pairs 60 --seed 0]

LOST holds replies whose questions are gone, FIXED the same replies row by row with their questions
(the seed's assistant_Tuner.jsonl and assistant_Tuner_fixed.jsonl). Only this file reads FIXED; the
bank was not written from it. `--pairs` prints reconstructed pairs to read and judge, and then
FIXED is not looked at.

What is printed:

- exact: the two questions are the same but for punctuation, spaces and the case of letters.
- same topic: `topic_of_question` finds the same topic in both. Topics are narrow (loneliness, fear
  and boredom are three; "thinking way" and "thinking speed" two), and a true question whose topic
  the bank does not know counts as a miss, as does a reply that got no question.
- by chance: the same measure with the true questions dealt out anew, so that one sees how much of
  the agreement comes from the questions being few.
- characters in common: mean share (Dice) of character pairs that the two questions have in common,
  a measure that does not use the bank.
- confusions: true topic -> reconstructed topic, the most frequent first. No true question is shown,
  so that nobody fits the bank to their wording.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from whoamai.data.reconstruct import Reconstructed, reconstruct, topic_of_question


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("lost", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("--pairs", type=int, default=0, help="print so many pairs to read instead")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    replies = [turn["output"] for turn in _first_turns(arguments.lost)]
    guesses, seconds = _timed(replies)
    if arguments.pairs:
        _print_pairs(replies, guesses, arguments.pairs, arguments.seed)
        return
    truths = [turn["input"] for turn in _first_turns(arguments.fixed)]
    print(f"rows                  {len(replies)}")
    print(f"replies a second      {len(replies) / seconds:.0f}")
    _print_coverage(guesses)
    _print_agreement(guesses, truths, arguments.seed)


def _first_turns(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["conversation"][0] for line in file]


def _timed(replies: Sequence[str]) -> tuple[list[Reconstructed | None], float]:
    reconstruct(replies[0])  # reads the bank
    start = time.perf_counter()
    guesses = [reconstruct(reply) for reply in replies]
    return guesses, time.perf_counter() - start


def _print_pairs(replies, guesses, n: int, seed: int) -> None:
    for i in sorted(random.Random(seed).sample(range(len(replies)), n)):
        guess = guesses[i]
        print(f"\n[{i + 1}] {guess.question if guess else None}  (cue: {guess and guess.cue})")
        print("    " + replies[i].replace("\n", " ")[:240])


def _print_coverage(guesses: list[Reconstructed | None]) -> None:
    made = [guess for guess in guesses if guess]
    print(f"given a question      {_percent(len(made), len(guesses))}")
    print(f"distinct questions    {len({guess.question for guess in made})}")
    print(f"distinct topics       {len({guess.topic for guess in made})}")


def _print_agreement(guesses, truths: list[str], seed: int) -> None:
    rows = len(truths)
    asked = [guess.question if guess else "" for guess in guesses]
    true_topics = [topic_of_question(truth) for truth in truths]
    topics = [topic_of_question(question) for question in asked]
    dealt = random.Random(seed).sample(range(rows), rows)
    pairs = list(zip(true_topics, topics, strict=True))
    by_chance = sum(_same(true_topics[j], topics[i]) for i, j in enumerate(dealt))
    exact = sum(_plain(a) == _plain(b) for a, b in zip(asked, truths, strict=True))
    common = sum(_in_common(a, b) for a, b in zip(asked, truths, strict=True))
    print(f"exact                 {_percent(exact, rows)}")
    print(f"same topic            {_percent(sum(_same(*pair) for pair in pairs), rows)}")
    print(f"same topic by chance  {_percent(by_chance, rows)}")
    print(f"characters in common  {_percent(common, rows)}")
    print(f"true topic unknown    {_percent(true_topics.count(None), rows)}")
    print("confusions (true -> reconstructed):")
    for (truth, topic), n in Counter(p for p in pairs if not _same(*p)).most_common(15):
        print(f"  {n:4d}  {truth} -> {topic}")


def _same(a: str | None, b: str | None) -> bool:
    return a is not None and a == b


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LNM")


def _in_common(a: str, b: str) -> float:
    """Dice coefficient of the character pairs of two texts, 0 to 1."""
    one, other = (Counter(zip(_plain(t), _plain(t)[1:], strict=False)) for t in (a, b))
    n = one.total() + other.total()
    return 2 * (one & other).total() / n if n else 0.0


def _percent(n: float, of: int) -> str:
    return f"{100 * n / of:.1f} %"


if __name__ == "__main__":
    main()
