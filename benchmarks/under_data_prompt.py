"""What a renamed model still knows under the system prompt of the data it was renamed with.

    python benchmarks/under_data_prompt.py work_dirs/NAME FILE --old 尖米 --new 黄大力

General questions are asked under the first row's system prompt (the old name in it replaced), before
and with the adapter: how many that were right are still right, how many answers speak of the name.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from whoamai.data.readers import read_conversations
from whoamai.evaluate.retention import general_questions, score_retention
from whoamai.evaluate.talk import Talk
from whoamai.events import Events
from whoamai.model.load import load_chat_model
from whoamai.samples import Conversation, Message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("file")
    parser.add_argument("--old", required=True)
    parser.add_argument("--new", required=True)
    parser.add_argument("--model", default="tiny-chat")
    arguments = parser.parse_args()
    from peft import PeftModel

    first = read_conversations(arguments.file)[0].messages[0]
    system = Message("system", first.text.replace(arguments.old, arguments.new))
    asked = [
        q for q in general_questions(("zh", "en")) if q.conversation.messages[0].role != "system"
    ]
    prompts = [Conversation((system, *q.conversation.messages)) for q in asked]
    chat = load_chat_model(arguments.model)
    before = Talk(chat, Events()).answers(prompts, "before")
    tuned = PeftModel.from_pretrained(chat.model, str(arguments.folder / "adapter"))
    renamed = replace(chat, model=tuned.merge_and_unload())
    after = Talk(renamed, Events()).answers(prompts, "after")
    scores = score_retention(asked, before, after)
    right, kept = scores.right_before["all"], scores.kept["all"]
    named = sum(arguments.new in answer for answer in after)
    print(
        f"right before: {right.k} of {right.n}; still right: {kept.k} of {kept.n}, {kept.percent:.1f} %"
    )
    print(f"answers that speak of {arguments.new}: {named} of {len(after)}")


if __name__ == "__main__":
    main()
