"""Configs with mistakes that people make, and what each must be told: line, setting, what, cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GOOD = "data:\n  data_path: a.jsonl\n"  # two lines: what follows begins on line 3


@dataclass(frozen=True)
class Wrong:
    """problems: for each (line, or the override; then what must stand in its message)."""

    name: str
    text: str | bytes
    problems: tuple[tuple[Any, ...], ...]
    overrides: tuple[str, ...] = ()


def wrong(name: str, text: str | bytes, *problems: tuple[Any, ...], overrides: Any = ()) -> Wrong:
    return Wrong(name, text, problems, tuple(overrides))


NAMES = [
    wrong("a typo in a setting", GOOD + "train:\n  lrr: 1e-4\n", (4, "train.lrr", "mean lr?")),
    wrong(
        "a typo in a section is no reason not to look into it",
        GOOD + "trian:\n  lr: 1e-4\n  sed: 3\n",
        (3, "trian", "the section train:"),
        (5, "train.sed", "mean seed?"),
    ),
    wrong("a setting at the top", GOOD + "lr: 1e-4\n", (3, "lr belongs under train:")),
    wrong(
        "a setting of another section",
        GOOD + "model:\n  max_length: 99\n",
        (4, "model.max_length", "max_length belongs under data:"),
    ),
    wrong(
        "a setting that two sections have",
        GOOD + "model:\n  system: x\n",
        (4, "system belongs under data: or under evaluation:"),
    ),
    wrong(
        "a setting of the top in a section",
        GOOD + "train:\n  work_dir: x\n",
        (4, "work_dir belongs at the top, not indented"),
    ),
    wrong(
        "a section in a section",
        "model:\n  dtype: auto\n  data:\n    data_path: a.jsonl\n",
        (1, "data.data_path", "no data is given"),
        (3, "model.data", "data", "at the top"),
    ),
    wrong(
        "sections in sections without settings",
        GOOD + "train:\n  evaluation:\n  model: x\n",
        (4, "evaluation belongs at the top"),
        (5, "model belongs at the top"),
    ),
    wrong("capitals", GOOD + "train:\n  LR: 1e-4\n", (4, "train.LR", "mean lr?")),
    wrong("hyphens", GOOD + "train:\n  max-epochs: 3\n", (4, "max-epochs", "mean max_epochs?")),
    wrong("a name with dots", GOOD + "train.lr: 1e-4\n", (3, "lr belongs under train:")),
    wrong(
        "a name that is near to nothing lists those there are",
        GOOD + "log:\n  qqqqq: 1\n",
        (4, "log.qqqqq", "There are: interval, trackers."),
    ),
    wrong(
        "XTuner's names",
        "alpaca_en_path: a.jsonl\nSYSTEM: x\ndataloader_num_workers: 0\noptim_type: AdamW\n"
        "use_varlen_attn: false\nquantization_config: {load_in_4bit: true}\nlora:\n  lora_r: 8\n",
        (1, "alpaca_en_path", "called data_path", "under data:"),
        (2, "SYSTEM", "called system", "under evaluation:"),
        (3, "dataloader_num_workers", "Not needed"),
        (4, "optim_type", "AdamW"),
        (5, "use_varlen_attn", "never see each other"),
        (6, "quantization_config", "model.quantization: nf4"),
        (8, "lora.lora_r", "Here it is called r."),
    ),
    wrong(
        "names of other trainers, their values judged too",
        GOOD + "learning_rate: fast\ntrain:\n  num_train_epochs: 2\nbf16: true\n",
        (3, "learning_rate", "called lr"),
        (3, "train.lr", 'found the text "fast"'),
        (5, "num_train_epochs", "called max_epochs"),
        (6, "bf16", "model.dtype: bfloat16"),
    ),
    wrong(
        "a misspelt data_path is not also missing",
        "data:\n  data_pth: a.jsonl\n",
        (2, "data.data_pth", "mean data_path?"),
    ),
    wrong("a number for a name", GOOD + "1: x\n", (3, "1 stands where the name")),
    wrong("true for a name", GOOD + "train:\n  true: 3\n", (4, "true stands where the name")),
    wrong("null for a name", GOOD + "~: 3\n", (3, "~ stands where the name")),
    wrong("a list for a name", GOOD + "? [a]\n: 3\n", (3, "brackets stand where the name")),
]

TYPES = [
    wrong(
        "text for numbers",
        GOOD + "train:\n  lr: high\n  max_epochs: three\n",
        (4, "train.lr", 'expected a number, found the text "high"', "it is 0.0002"),
        (5, "train.max_epochs", "expected a whole number", "it is 3"),
    ),
    wrong(
        "numbers in quotes",
        GOOD + "train:\n  lr: '2e-4'\n  seed: \"7\"\n",
        (4, "train.lr", "Write 0.0002 without quotes"),
        (5, "train.seed", "Write 7 without quotes"),
    ),
    wrong("1_000", GOOD + "train:\n  batch_size: 1_000\n", (4, "train.batch_size", "Write 1000")),
    wrong("1,000", "data: {data_path: a, max_length: '1,000'}\n", (1, "Write 1000")),
    wrong("3.0 epochs", GOOD + "train:\n  max_epochs: 3.0\n", (4, "number 3.0", "Write 3")),
    wrong("3.5 epochs", GOOD + "train:\n  max_epochs: 3.5\n", (4, "whole number", "it is 3")),
    wrong("a list for a number", GOOD + "train:\n  lr: [1e-4]\n", (4, "found a list of 1")),
    wrong("true for a number", GOOD + "train:\n  lr: true\n", (4, "a number, found true")),
    wrong(
        "yes, no and others where true or false belongs",
        "data:\n  data_path: a\n  pack_to_max_length: yes\nmodel:\n  double_quantization: off\n"
        "lora:\n  adapt_head: 'true'\ntrain:\n  share_prefixes: 0\n",
        (3, "expected true or false", 'found the text "yes"', "Write true"),
        (5, "double_quantization", "Write false"),
        (7, "lora.adapt_head", "Write true without quotes"),
        (9, "train.share_prefixes", "Write false"),
    ),
    wrong(
        "a number and true for text",
        "data:\n  data_path: a\n  name: 42\n  author: true\n",
        (3, "data.name", "expected text", 'put it in quotes: "42"'),
        (4, "data.author", 'put it in quotes: "true"'),
    ),
    wrong(
        "a placeholder without quotes",
        "data:\n  data_path: a\n  name: {{name}}\n",
        (3, "data.name", "brackets stand", '"{{name}}"'),
    ),
    wrong(
        "text for a list",
        "data:\n  data_path: a\n  old_names: 尖米\n",
        (3, "data.old_names", "a list of texts", 'Write a list: ["尖米"]'),
    ),
    wrong(
        "items of a list that are no text, each with its line",
        GOOD
        + "evaluation:\n  evaluation_inputs:\n    - 你是谁\n    - 3\n    - 你好: 你是谁\n    -\n",
        (6, "evaluation.evaluation_inputs", "item 2", '"3"'),
        (7, "item 3", 'in quotes: "你好: 你是谁"'),
        (8, "item 4", "found nothing"),
    ),
    wrong(
        "data_path as a number is told once, though it may be text or a list",
        "data:\n  data_path: 3\n",
        (2, "data.data_path", "text or a list of texts", 'quotes: "3"'),
    ),
    wrong(
        "an item of data_path is told once",
        "data:\n  data_path: [a.jsonl, 3]\n",
        (2, "item 2", "expected text"),
    ),
    wrong(
        "nothing after the colon",
        GOOD + "train:\n  lr:\n  max_epochs: null\n",
        (4, "train.lr", "found nothing (null)", "it is 0.0002"),
        (5, "train.max_epochs", "found nothing (null)"),
    ),
    wrong("settings below a setting", GOOD + "train:\n  lr:\n    max: 1e-4\n", (4, "train.lr")),
    wrong("a number for a choice", GOOD + "model:\n  dtype: 16\n", (4, "auto or bfloat16")),
]

VALUES = [
    wrong(
        "choices by other names",
        GOOD + "model:\n  dtype: bf16\n  quantization: 4bit\nlora:\n  variant: Dora\n",
        (4, "model.dtype", "Write bfloat16"),
        (5, "model.quantization", "Write nf4"),
        (7, "lora.variant", "mean dora?"),
    ),
    wrong(
        "a choice that is near to none",
        "data:\n  data_path: a\n  encoding: utf\n",
        (3, "data.encoding", "none of its choices", "There are: whoamai, xtuner."),
    ),
    wrong(
        "a tracker there is not",
        GOOD + "log:\n  trackers: [wandb, tensorbord]\n",
        (4, "log.trackers", "item 2", "mean tensorboard?"),
    ),
    wrong("a device", GOOD + "model:\n  device: gpu\n", (4, "model.device", "cuda:1")),
    wrong(
        "out of range",
        "data:\n  data_path: a\n  max_length: 4\nlora:\n  r: 0\n  lora_dropout: 1\ntrain:\n  lr: 2\n"
        "  warmup_ratio: -0.1\n",
        (3, "data.max_length", "at least 8", "it is 2048"),
        (5, "lora.r", "at least 1 and at most 4,096"),
        (6, "lora.lora_dropout", "below 1"),
        (8, "train.lr", "above 0 and below 1", "it is 0.0002"),
        (9, "train.warmup_ratio", "at least 0"),
    ),
    wrong("a number that is none", GOOD + "train:\n  lr: .nan\n", (4, "out of range")),
    wrong("without an end", GOOD + "lora:\n  lora_alpha: .inf\n", (4, "at most 100,000")),
    wrong("1e999", GOOD + "train:\n  max_norm: 1e999\n", (4, "train.max_norm", "out of range")),
    wrong(
        "whole numbers beyond all limits",
        GOOD + f"train:\n  seed: {10**30}\n  max_epochs: {'9' * 5000}\n",
        (4, "train.seed", "below 4,294,967,296"),
        (5, "train.max_epochs", "expected a whole number"),
    ),
    wrong(
        "several devices for one sequence",
        GOOD + "train:\n  sequence_parallel_size: 2\n",
        (4, "train.sequence_parallel_size", "only 1 is built"),
    ),
    wrong(
        "betas beyond 1 and a step size of nothing, told together",
        GOOD + "train:\n  betas: [0.9, 1.5]\n  tokens_per_pass: 0\n",
        (4, "train.betas", "below 1"),
        (5, "train.tokens_per_pass", "at least 1, or auto"),
    ),
    wrong("one beta", GOOD + "train:\n  betas: [0.9]\n", (4, "a list of 2 numbers")),
    wrong("three betas", GOOD + "train:\n  betas: [0.9, 0.99, 1]\n", (4, "found a list of 3")),
    wrong("a beta", GOOD + "train:\n  betas: 0.9\n", (4, "expected a list of 2 numbers")),
    wrong("a word as a beta", GOOD + "train:\n  betas: [0.9, x]\n", (4, "item 2", "a number")),
    wrong(
        "no checkpoint is kept",
        GOOD + "checkpoint:\n  save_total_limit: 0\n",
        (4, "checkpoint.save_total_limit", "-1 (keep all)"),
    ),
    wrong(
        "no layer gets an adapter",
        GOOD + "lora:\n  target_modules: []\n",
        (4, "lora.target_modules", "write all-linear"),
    ),
    wrong(
        "quantized weights that are trained",
        GOOD + "model:\n  quantization: nf4\nlora: null\n",
        (4, "model.quantization", "nf4 freezes the weights", "config.yaml:5"),
    ),
    wrong(
        "a contradiction is told beside other mistakes",
        GOOD + "model:\n  quantization: nf4\nlora: null\ntrain:\n  lr: x\n  betas: [2, 2]\n",
        (4, "nf4 freezes"),
        (7, "train.lr"),
        (8, "train.betas"),
    ),
    wrong(
        "to stop when a name is learned that is not given",
        GOOD + "evaluation:\n  stop_when_learned: true\n",
        (4, "evaluation.stop_when_learned", "write it in data.name"),
    ),
    wrong(
        "to stop when a name is learned that is left empty",
        GOOD + "  name: null\nevaluation:\n  stop_when_learned: true\n",
        (5, "evaluation.stop_when_learned", "write it in data.name", "config.yaml:3"),
    ),
    wrong(
        "to keep the best adapter of none",
        GOOD + "  name: x\nlora: null\nevaluation:\n  stop_when_learned: true\n",
        (6, "evaluation.stop_when_learned", "keeps the best adapter", "config.yaml:4"),
    ),
    wrong(
        "neither a name nor an adapter",
        GOOD + "lora: null\nevaluation:\n  stop_when_learned: true\n",
        (5, "evaluation.stop_when_learned", "write the name and train an adapter"),
    ),
    wrong(
        "goals beyond what there is",
        GOOD + "evaluation:\n  goal_recall: 101\n  goal_leak: -1\n",
        (4, "evaluation.goal_recall", "out of range"),
        (5, "evaluation.goal_leak", "out of range"),
    ),
    wrong("an empty folder name", GOOD + "work_dir: ''\n", (3, "work_dir", "is empty")),
]

DATA = [
    wrong("an empty file", "", (1, "data.data_path", "no data is given", "data_path: my_data")),
    wrong("only comments", "# nothing\n\n", (1, "no data is given")),
    wrong("no data section", "train:\n  lr: 1e-4\n", (1, "no data is given")),
    wrong("no data_path", "lora: null\ndata:\n  name: x\n", (2, "data.data_path", "no data")),
    wrong("an empty data_path", "data:\n  data_path: ''\n", (2, "name is empty")),
    wrong("an empty list of data", "data:\n  data_path: []\n", (2, "name is empty")),
    wrong("blank data", "data:\n  data_path: [a, '  ']\n", (2, "name is empty")),
    wrong("null data", "data:\n  data_path: null\n", (2, "found nothing")),
    wrong(
        "a list without spaces after the dashes",
        "data:\n  data_path:\n    -a.jsonl\n    -b.jsonl\n  old_names:\n    -x\n    -y\n",
        (2, "data.data_path", "a space is missing after the -"),
        (5, "data.old_names", "Write a space after each -"),
    ),
]

FORMS = [
    wrong("a list as the file", "- data\n- b\n", (1, "the file is a list", "such as data:")),
    wrong("a word as the file", "hello\n", (1, "a single value", "such as data:")),
    wrong(
        "values and lists for sections, what was meant written out",
        "data: my.jsonl\nmodel: qwen\nlog: [a]\n",
        (1, "data", "data_path: my.jsonl"),
        (2, "model", "pretrained_model_name_or_path: qwen"),
        (3, "log", "not a list", "without the -"),
    ),
    wrong(
        "an empty section whose settings are not indented",
        GOOD + "train:\nlr: 1e-4\n",
        (3, "train", "the section is empty", "indented"),
        (4, "lr belongs under train:"),
    ),
    wrong(
        "a model with a colon in its name is no missing space",
        GOOD + "model: qwen:7b\n",
        (3, "model", "pretrained_model_name_or_path: qwen:7b"),
    ),
    wrong("lora: false", GOOD + "lora: false\n", (3, "lora", "Write lora: null")),
    wrong(
        "twice the same setting, at any depth",
        GOOD + "train:\n  lr: 1e-4\n  seed: 1\n  lr: 2e-4\nlora: {r: 8, r: 9}\n",
        (6, "train.lr", "a second time", "line 4"),
        (7, "lora.r", "a second time"),
    ),
    wrong(
        "twice the same section, both looked into",
        "train:\n  lr: x\ndata:\n  data_path: a\ntrain:\n  sed: 1\n",
        (2, "train.lr"),
        (5, "train", "a second time", "line 1"),
        (6, "train.sed"),
    ),
    wrong("two documents", GOOD + "---\ntrain:\n  lr: x\n", (3, "second document", "---")),
    wrong(
        "data in the place of a config",
        '{"messages": []}\n{"messages": []}\n',
        (1, "messages"),
        (2, "after the end of the config", "a row a line is data"),
    ),
]

YAML = [
    wrong(
        "tabs, and what else is wrong",
        "data:\n  data_path: a\ntrain:\n\tlr: 1e-4\n\tseed: 1\nlora:\n  rr: 3\n",
        (4, "a tab", "4, 5", "two spaces"),
        (7, "lora.rr"),
    ),
    wrong("a tab after the colon", GOOD + "train:\n  lr:\t1e-4\n", (4, "a tab")),
    wrong(
        "no space after the colon",
        GOOD + "train:\n  seed: 1\n  lr:2e-4\n",
        (5, "a space is missing after the colon", "Write: lr: 2e-4"),
    ),
    wrong(
        "no space after the colon, at the beginning of a section",
        GOOD + "train:\n  lr:2e-4\n  seed: 1\n",
        (4, "a space is missing after the colon", "Write: lr: 2e-4"),
    ),
    wrong(
        "no space after any colon",
        GOOD + "train:\n  lr:2e-4\n  seed:3\n",
        (4, "a space is missing after the colon", "lr: 2e-4", "seed: 3"),
    ),
    wrong(
        "the wide colon of Chinese text",
        GOOD + "train:\n  seed: 1\n  lr：2e-4\nlora:\n  r： 8\n",
        (5, "wide", "Write: lr: 2e-4"),
        (7, "wide", "Write: r: 8"),
    ),
    wrong("the wide colon after a section", "data：\n  data_path: a\n", (1, "wide", "data:")),
    wrong("a name without a colon", GOOD + "train:\n  lr\n  seed: 1\n", (4, "without a colon")),
    wrong(
        "an open bracket, an open quote and a wrong value further down",
        'lora:\n  target_modules: [a, b\ndata:\n  data_path: "a\ntrain:\n  lr: x\n',
        (2, "the bracket that opens here"),
        (4, "column 14", "the quote that opens here is never closed"),
        (6, "train.lr"),
    ),
    wrong(
        "several unreadable lines in one section",
        "data:\n  data_path: *.jsonl\n  name: 'x' y\n  system: a: b\n  author: @x\n  max_length: 3\n",
        (2, "column 14", 'in quotes: data_path: "*.jsonl"'),
        (3, "closing quote"),
        (4, "a colon followed by a space", 'system: "a: b"'),
        (5, "begins with a sign", 'author: "@x"'),
        (6, "data.max_length"),
    ),
    wrong("indented too deep", GOOD + "    name: x\n", (3, "indented deeper", "two spaces")),
    wrong(
        "indented like nothing above",
        "data:\n    data_path: a\n  name: x\n",
        (3, "agrees with no line above"),
    ),
    wrong("a list behind the name", "data:\n  data_path: - a\n", (2, "a list", "[a, b]")),
    wrong(
        "a path with backslashes in double quotes",
        'data:\n  data_path: "C:\\data\\a.jsonl"\n',
        (2, "escape", "single quotes"),
    ),
    wrong("an escape beyond all signs", GOOD + 'work_dir: "\\UFFFFFFFF"\n', (3, "YAML")),
    wrong("no character", GOOD + 'work_dir: "\\0"\n', (3, "half a character, or for none")),
    wrong("half a character", GOOD + 'work_dir: "\\ud83d"\n', (3, "half a character")),
    wrong("something behind |", GOOD + "work_dir: |x\n  y\n", (3, "| and >")),
    wrong("a directive", "%x\n" + GOOD, (1, "%")),
    wrong(
        "anchors, aliases and merge keys",
        "data:\n  data_path: &a a.jsonl\n  name: *a\ntrain:\n  <<: {lr: 1}\n",
        (2, "&a", "Take it away"),
        (3, "*a", "Write the value out"),
        (5, "<<", "Write the settings out"),
    ),
    wrong(
        "a group that holds itself",
        "data: &d\n  data_path: a\n  name: *d\n",
        (1, "&d"),
        (3, "*d"),
    ),
    wrong(
        "nine lines that unfold to a billion texts",
        "allow: &a [x, x]\n"
        + "".join(
            f"k{n}: &{b} [{', '.join(['*' + a] * 9)}]\n" for n, (a, b) in enumerate(("ab", "bc"))
        )
        + GOOD,
        (1, "&a"),
        *((line, text) for line, name in ((2, "a"), (3, "b")) for text in ["*" + name] * 9),
        (2, "&b"),
        (3, "&c"),
        (2, "k0"),
        (3, "k1"),
    ),
    wrong("a tag", GOOD + "work_dir: !!str x\n", (3, "!!str", "Take it away")),
    wrong("a tag that would run code", GOOD + "work_dir: !!python/name:os.system\n", (3, "tag")),
    wrong("nested without end", GOOD + "allow: " + "[" * 5000 + "\n", (3, "more than 16 deep")),
    wrong("a control character", GOOD + "work_dir: a\x07b\n", (3, "U+0007")),
    wrong("not UTF-8", "data:\n  data_path: 数据\n".encode("gbk"), (2, "not written in UTF-8")),
    wrong("UTF-16", GOOD.encode("utf-16"), (1, "UTF-16", "UTF-8")),
    wrong("a binary file", b"PK\x03\x04\n\x00\x00", (2, "not a text file")),
    wrong("a file far too large", "# x\n" * 100_000, (1, "larger than 256 KiB", "data.data_path")),
]

OVERRIDES = [
    wrong("an override without =", GOOD, ("lr", "has no =", "train.lr=1e-4"), overrides=["lr"]),
    wrong("a bare name", GOOD, ("lr=1e-4", "Write train.lr=1e-4"), overrides=["lr=1e-4"]),
    wrong(
        "a bare name that two sections have",
        GOOD,
        ("system=x", "Write data.system=x or evaluation.system=x"),
        overrides=["system=x"],
    ),
    wrong("a typo", GOOD, ("train.lrr=.1", "Write train.lr=.1"), overrides=["train.lrr=.1"]),
    wrong("a section", GOOD, ("trian.lr=.1", "Write train.lr=.1"), overrides=["trian.lr=.1"]),
    wrong(
        "another section",
        GOOD,
        ("model.lr=.1", "Write train.lr=.1"),
        overrides=["model.lr=.1"],
    ),
    wrong("no name", GOOD, ("=3", "unknown setting"), overrides=["=3"]),
    wrong("too deep", GOOD, ("data.data_path.0=a", "unknown"), overrides=["data.data_path.0=a"]),
    wrong(
        "wrong values",
        GOOD,
        ("train.lr=x", "expected a number"),
        ("train.seed=-1", "out of range"),
        ("data.old_names=x", "a list of texts"),
        overrides=["train.lr=x", "train.seed=-1", "data.old_names=x"],
    ),
    wrong(
        "an item of a list",
        GOOD,
        ("data.old_names=[a, 3]", "item 2", "expected text"),
        overrides=["data.old_names=[a, 3]"],
    ),
    wrong(
        "misspelt or unreadable data is not also missing",
        "",
        ("data.data_pth=a", "Write data.data_path=a"),
        overrides=["data.data_pth=a"],
    ),
    wrong(
        "an open bracket",
        "",
        ("data.data_path=[a", "the bracket that opens here"),
        overrides=["data.data_path=[a"],
    ),
    wrong(
        "a whole section",
        GOOD,
        ("train={seed: 3}", "train.seed=…"),
        ("lora=3", "lora.r=…"),
        overrides=["train={seed: 3}", "lora=3"],
    ),
    wrong(
        "a contradiction with the file",
        GOOD + "model:\n  quantization: nf4\n",
        (4, "model.quantization", "nf4 freezes", "(lora=null)"),
        overrides=["lora=null"],
    ),
    wrong(
        "file and overrides together",
        GOOD + "train:\n  lr: x\n  sed: 1\n",
        (5, "train.sed"),
        ("train.lr=y", "expected a number"),
        ("foo=1", "unknown setting"),
        overrides=["train.lr=y", "foo=1"],
    ),
    wrong(
        "nothing for the data", GOOD, ("data.data_path=", "nothing"), overrides=["data.data_path="]
    ),
]

ALL = [*NAMES, *TYPES, *VALUES, *DATA, *FORMS, *YAML, *OVERRIDES]
