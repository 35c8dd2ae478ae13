"""What to try when goals were missed: at most three things, each derived from what was measured.

Every rule below looks at one likely cause, says which goals it explains, and gives a number and an
option. Causes come before symptoms: the order of _RULES is the order in which a person would look.
Of rules that end in the same option the first speaks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from whoamai.data.claims import claimed_names
from whoamai.data.identity import LANGUAGES
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import PLAIN_CONTEXTS, Report
from whoamai.evaluate.report_words import context_name, group_name, language_name, percent
from whoamai.evaluate.trend import fall, first, last
from whoamai.messages import joined, tr

_MOST = 3
_ROWS, _REPLAY, _LR = 900, 0.8, 2e-4  # what a report that says nothing was probably made with
_KL = 1.0  # as much as the tokens of the replayed answers themselves
_GAP = 5.0  # points between two shares that are no accident of a few answers
_FALLING = 0.05  # of its height a loss falls in the last quarter while it is still learning
_RISING = 2.0  # points of recall from one probe to the next
_BARELY = 0.8  # a loss that ends above so much of its beginning has barely moved
_GREW = 1.2  # one that ends above so much has grown
_MOSTLY = 0.5  # of the leaks in one place: they are concentrated there
_CLAIMED = 0.03  # of the answers must give a name before it counts, and at least three

RECALL, ROLE, LEAK = "recall", "recall_role", "leak"
_OF_NAME = frozenset((RECALL, ROLE, LEAK))
_KEPT = frozenset(("retention", "retention_long"))


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to try, the numbers it follows from, and how to write it down ("--rows 1800")."""

    text: str
    why: str
    option: str = ""


Rule = Callable[[Report], Advice | None]


def advice(report: Report) -> list[Advice]:
    """The at most three most useful things to try, the most useful first; none where all went well."""
    missed = frozenset(report.missed)
    if not missed:
        return []
    if nothing := _nothing_trained(report):
        return [nothing]
    found: dict[str, Advice] = {}
    for goals, rule in _RULES:
        if missed & goals and (tip := rule(report)):
            found.setdefault(_flag(tip), tip)
    return [_for_whom(report, tip) for tip in list(found.values())[:_MOST]]


def _for_whom(report: Report, tip: Advice) -> Advice:
    """A check trains nothing itself: its advice is for the renaming that comes next."""
    if report.kind != "check" or not tip.option.startswith("--"):
        return tip
    return replace(tip, option=f"whoamai rename … {tip.option}")


def _flag(tip: Advice) -> str:
    """What two pieces of advice have in common that set the same thing: "--rows", "train.lr"."""
    return tip.option.replace("=", " ").partition(" ")[0] or tip.text


# ---- what went wrong with the training -----------------------------------------------------------


def _nothing_trained(report: Report) -> Advice | None:
    steps = report.details.get("training", {}).get("steps")
    if report.curve is not None:
        steps = sum(loss is not None for loss in report.curve.losses)
    if steps != 0:
        return None
    return Advice(
        tr("Train at all: no step was made, so the model is what it was before."),
        tr("0 optimizer steps."),
        _longer(report, 1),
    )


def _blew_up(report: Report) -> Advice | None:
    """The loss grew, or steps were no number: the learning rate is too high."""
    losses = report.curve.losses if report.curve else ()
    skipped = sum(loss is None for loss in losses)
    start, end = first(losses), last(losses)
    grew = start is not None and end is not None and end > _GREW * start
    if not grew and skipped < 3:
        return None
    why = tr("The loss went from {start:.2f} to {end:.2f}.").format(
        start=start or math.nan, end=end or math.nan
    )
    if skipped:
        text = tr("{n:,} of {all:,} steps were skipped, for their gradients were no numbers.")
        skips = text.format(n=skipped, all=len(losses))
        why = joined(why, skips) if grew else skips
    return Advice(tr("Learn more slowly: the training fell apart."), why, _lr(report, 1 / 4))


def _barely_moved(report: Report) -> Advice | None:
    losses = report.curve.losses if report.curve else ()
    start, end = first(losses), last(losses)
    if start is None or end is None or not _BARELY * start < end <= _GREW * start:
        return None
    text = tr("The loss only went from {start:.2f} to {end:.2f} in {n:,} steps.")
    return Advice(
        tr("Learn faster: the training hardly moved the model."),
        text.format(start=start, end=end, n=len(losses)),
        _lr(report, 3),
    )


def _still_learning(report: Report) -> Advice | None:
    """Recall rose between the last two probes, or the loss was still falling at the end."""
    text = tr("Train longer: it was still learning when training ended.")
    known = [p for p in report.probes if p.recall.n]
    if len(known) > 1:
        before, last = known[-2].recall, known[-1].recall
        if last.percent - before.percent >= _RISING:
            why = tr("Recall rose from {before} to {last} between the last two probes.").format(
                before=percent(before, sign=True), last=percent(last, sign=True)
            )
            return Advice(text, why, _longer(report, 2))
    fallen = fall(report.curve.losses if report.curve else ())
    if fallen < _FALLING:
        return None
    why = tr("The loss fell by another {percent:.0f} % over the last quarter of the training.")
    return Advice(text, why.format(percent=100 * fallen), _longer(report, 2))


def _forgot_and_missed(report: Report) -> Advice | None:
    """Neither the name nor what it knew: steps too large to end anywhere."""
    goals = report.goals
    if not (report.kept.n and report.kept.percent < goals.retention):
        return None
    if not report.recall.n or report.recall.percent >= goals.recall:
        return None
    why = tr("It gives the name in {recall}, and only {kept} of what was right is still right.")
    return Advice(
        tr("Learn more slowly: it lost what it knew and did not get its name for it."),
        why.format(recall=percent(report.recall, sign=True), kept=percent(report.kept, sign=True)),
        _lr(report, 1 / 2),
    )


def _few_rows(report: Report) -> Advice | None:
    rows = report.details.get("rows", {}).get("identity")
    if not isinstance(rows, int) or rows >= _ROWS / 2:
        return None
    return Advice(
        tr("Give it more rows that teach the name."),
        tr("{n:,} rows taught it; {usual:,} are usual.").format(n=rows, usual=_ROWS),
        _longer(report, max(2, _ROWS / max(1, rows))),
    )


# ---- what is wrong with the data or the prompt ---------------------------------------------------


def _other_names(report: Report) -> Advice | None:
    """It calls itself by names that are neither the new one nor an old one: the data teaches them."""
    known = {n.casefold() for n in (report.identity.name, *report.old_names)}
    wrong = [a.after for a in report.answers if not a.recalled]
    counts = Counter(
        name for text in wrong for name in claimed_names(text) if name.casefold() not in known
    )
    enough = max(3, _CLAIMED * len(report.answers))
    names = [(name, n) for name, n in counts.most_common(4) if n >= enough]
    if not names:
        return None
    shown = tr(", ").join(f"{name} ({n})" for name, n in names)
    why = tr("It calls itself: {names} (answers).").format(names=shown)
    option = " ".join(f"--old {_quoted(name)}" for name, _ in names)
    if len(names) == 1:
        return Advice(tr("Name the old name that was not found by itself."), why, option)
    return Advice(tr("Look into the data: it teaches several names."), why, option)


def _old_in_data(report: Report) -> Advice | None:
    data = report.details.get("data")
    rows = data.get("with_old_name") if isinstance(data, Mapping) else None
    if not isinstance(rows, int) or not rows:
        return None
    name = report.old_names[0] if report.old_names else None
    return Advice(
        tr("Take the old name out of the data: it is still taught there."),
        tr("{n:,} rows of the data hold an old name.").format(n=rows),
        f"--old {_quoted(name)}" if name else "whoamai data replace",
    )


def _language_not_trained(report: Report) -> Advice | None:
    """One language is far behind the others."""
    by_language = next(s.by_language for s in report.scores if s.name == RECALL)
    shares = {code: s for code, s in by_language.items() if s.n}
    if len(shares) < 2:
        return None
    worst = min(shares, key=lambda code: shares[code].percent)
    best = max(shares, key=lambda code: shares[code].percent)
    if shares[best].percent - shares[worst].percent < 2 * _GAP:
        return None
    trained = report.details.get("languages")
    codes = [code for code in LANGUAGES if code in shares]
    untrained = isinstance(trained, Sequence) and worst not in trained
    text = (
        tr("Teach the name in {language}, too: it was not trained in it.")
        if untrained
        else tr("Teach the name in {language} more.")
    )
    why = tr("The name is given in {worst} of the answers in {language}, in {best} in {other}.")
    return Advice(
        text.format(language=language_name(worst)),
        why.format(
            worst=percent(shares[worst], sign=True),
            language=language_name(worst),
            best=percent(shares[best], sign=True),
            other=language_name(best),
        ),
        "--lang " + ",".join(codes) if untrained else _longer(report, 2),
    )


def _template(report: Report) -> Advice | None:
    """Good as it was trained, bad once it was loaded again: another chat template."""
    if not report.merged or not report.merged.recall.n:
        return None
    plain = report.after.recall.get(("none", "all"), report.recall)
    merged = report.merged.recall
    if plain.percent - merged.percent < _GAP:
        return None
    why = tr(
        "Without a system prompt the name is given in {plain}, by the merged model only in {merged}."
    )
    return Advice(
        tr(
            "Use the chat template it was trained with wherever the merged model runs; it is written "
            "beside the adapter."
        ),
        why.format(plain=percent(plain, sign=True), merged=percent(merged, sign=True)),
        "adapter/whoamai_template.json",
    )


def _default_system(report: Report) -> Advice | None:
    """Good everywhere but under the system prompt that the model's template puts in by itself."""
    recall = report.after.recall
    default = recall.get(("default", "all"), Share(0, 0))
    others = [s for c in PLAIN_CONTEXTS if c != "default" and (s := recall.get((c, "all")))]
    rest = Share(sum(s.k for s in others), sum(s.n for s in others))
    if not default.n or not rest.n or rest.percent - default.percent < _GAP:
        return None
    why = tr(
        "Under the model's default system prompt the name is given in {default}, otherwise in {rest}."
    )
    return Advice(
        tr(
            "The model's default system prompt names another identity: teach the name under it longer, "
            "or give a system prompt with the new name where the model runs."
        ),
        why.format(default=percent(default, sign=True), rest=percent(rest, sign=True)),
        _longer(report, 2),
    )


# ---- where it fails ------------------------------------------------------------------------------


def _leaks_in_context(report: Report) -> Advice | None:
    """Leaks that mostly come under a system prompt: the old name probably stands in it."""
    place = _most(report.after.leak, lambda key: key != "all" and not key.startswith("group:"))
    if place is None or place[0] not in ("default", "named", "named_role"):
        return None
    context, share, all_of_them = place
    name = _new_leak(report, context)
    return Advice(
        tr("An old name probably stands in the system prompt: have it replaced.")
        if name
        else tr("Under this system prompt it goes back to its old name: teach it longer."),
        tr("{k:,} of {all:,} answers with an old or foreign name come here: {where}.").format(
            k=share.k, all=all_of_them, where=context_name(context)
        ),
        f"--old {_quoted(name)}" if name else _longer(report, 2),
    )


def _leaks_in_group(report: Report) -> Advice | None:
    place = _most(report.after.leak, lambda key: key.startswith("group:"))
    if place is None:
        return None
    group, share, all_of_them = place
    name = _new_leak(report, group)
    text = (
        tr("Most old or foreign names come from one kind of question; give the name it says there.")
        if name
        else tr("Most old or foreign names come from one kind of question; more rows help.")
    )
    return Advice(
        text,
        tr("{k:,} of {all:,} answers with an old or foreign name come here: {where}.").format(
            k=share.k, all=all_of_them, where=group_name(group.partition(":")[2])
        ),
        f"--old {_quoted(name)}" if name else _longer(report, 2),
    )


def _roles(report: Report) -> Advice | None:
    role, plain = report.recall_role, report.recall
    if not role.n or plain.percent - role.percent < _GAP:
        return None
    return Advice(
        tr("Train longer: under system prompts that give it a role the name is learned last."),
        tr("The name is given in {role} under role prompts, in {plain} otherwise.").format(
            role=percent(role, sign=True), plain=percent(plain, sign=True)
        ),
        _longer(report, 2),
    )


def _anything_else(report: Report) -> Advice | None:
    """Nothing stands out: more of the same."""
    missing = tr("The name is given in {recall}, an old or foreign one in {leak}.")
    return Advice(
        tr("Train longer, on more rows."),
        missing.format(
            recall=percent(report.recall, sign=True), leak=percent(report.leak, sign=True)
        ),
        _longer(report, 2),
    )


# ---- what it cost --------------------------------------------------------------------------------


def _spread(report: Report) -> Advice | None:
    share = report.spread.after.get("all") if report.spread else None
    if not share or not share.n:
        return None
    return Advice(
        tr("Mix in more of the model's own answers: the name comes where nobody asked."),
        tr("{k:,} of {n:,} answers to general questions mention it ({percent}).").format(
            k=share.k, n=share.n, percent=percent(share, sign=True)
        ),
        _more_replay(report),
    )


def _fewer_steps(report: Report) -> Advice | None:
    """Learned long before the end: what came after only cost."""
    stop = report.stop
    if not stop or not stop.learned_at or stop.stopped_at < 2 * stop.learned_at:
        return None
    text = tr("Step {learned:,} knew the name, and training went on to step {stopped:,}.")
    return Advice(
        tr("Stop earlier: what came after the name was learned only cost."),
        text.format(learned=stop.learned_at, stopped=stop.stopped_at),
        _longer(report, max(0.25, 1.5 * stop.learned_at / stop.stopped_at)),
    )


def _gentler(report: Report) -> Advice | None:
    """Much was forgotten: smaller steps forget less."""
    return _forgetting(report, tr("Learn more slowly, which forgets less."), _lr(report, 1 / 2))


def _kl(report: Report) -> Advice | None:
    if report.kind == "train" or report.details.get("training", {}).get("kl_weight"):
        return None
    text = tr("Hold its other answers closer to what they were, at the cost of some time.")
    return _forgetting(report, text, f"--kl {_KL:g}")


def _replay(report: Report) -> Advice | None:
    text = tr("Mix in more of the model's own answers, which hold what it knows.")
    return _forgetting(report, text, _more_replay(report))


def _forgetting(report: Report, text: str, option: str) -> Advice | None:
    parts = [part for part in (report.retention, report.retention_long) if part]
    lost = [forgotten for part in parts for forgotten in part.forgotten]
    kept = Share(*(sum(getattr(p.kept["all"], x) for p in parts) for x in ("k", "n")))
    if not kept.n:
        return None
    why = tr("{k:,} of {n:,} answers that were right are wrong now.").format(
        k=kept.n - kept.k, n=kept.n
    )
    kinds = Counter(forgotten.kind for forgotten in lost).most_common(2)
    if kinds:
        shown = tr(", ").join(f"{kind} ({n})" for kind, n in kinds)
        why = joined(why, tr("Most of them: {kinds}.").format(kinds=shown))
    return Advice(text, why, option)


_RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (_OF_NAME | _KEPT, _blew_up),
    (frozenset((RECALL, ROLE)), _other_names),
    (frozenset((LEAK,)), _old_in_data),
    (frozenset(("merged_recall", "merged_leak")), _template),
    (frozenset((RECALL, LEAK)), _language_not_trained),
    (frozenset((RECALL, LEAK)), _default_system),
    (frozenset((RECALL,)), _forgot_and_missed),
    (frozenset((RECALL, ROLE)), _barely_moved),
    (frozenset((RECALL, ROLE)), _few_rows),
    (_OF_NAME, _still_learning),
    (frozenset((LEAK,)), _leaks_in_context),
    (frozenset(("spread",)), _spread),
    (_KEPT, _replay),
    (_KEPT | {"spread"}, _fewer_steps),
    (_KEPT, _kl),
    (_KEPT, _gentler),
    (frozenset((LEAK,)), _leaks_in_group),
    (frozenset((ROLE,)), _roles),
    (_OF_NAME, _anything_else),
)


# ---- how an option is written --------------------------------------------------------------------


def _longer(report: Report, times: float) -> str:
    """`times` as much training: rows of rename, which passes over them once; epochs of train."""
    if report.kind == "train":
        epochs = report.details.get("training", {}).get("max_epochs", 1)
        return f"train.max_epochs={max(1, round(epochs * times))}"
    rows = report.details.get("rows", {}).get("identity") or _ROWS
    return f"--rows {_round(rows * times)}"


def _lr(report: Report, times: float) -> str:
    rate = report.details.get("training", {}).get("lr")
    if not rate:
        rate = max(report.curve.learning_rates, default=_LR) if report.curve else _LR
    text = f"{rate * times:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"train.lr={text}" if report.kind == "train" else f"--lr {text}"


def _more_replay(report: Report) -> str:
    """Twice the replayed answers a row; a training by a config has none, and goes more slowly."""
    if report.kind == "train":
        return _lr(report, 1 / 2)
    rows = report.details.get("rows", {})
    ratio = rows.get("replay", 0) / rows["identity"] if rows.get("identity") else 0
    return f"--replay {2 * ratio or _REPLAY:.1f}"


def _round(rows: float) -> int:
    """To two digits, as a person would say it."""
    if rows < 10:
        return max(1, round(rows))
    unit = 10 ** (math.floor(math.log10(rows)) - 1)
    return round(rows / unit) * unit


def _quoted(name: str) -> str:
    """For a shell, where that is needed."""
    plain = all(c.isalnum() or c in "-._" for c in name) and not name.startswith("-")
    return name if plain else "'" + name.replace("'", "'\\''") + "'"


# ---- where the leaks are --------------------------------------------------------------------------


def _most(
    leaks: Mapping[tuple[str, str], Share], counts: Callable[[str], bool]
) -> tuple[str, Share, int] | None:
    """(key, share, leaks in all) where most leaks are; None where no place stands out."""
    places = {key: share for (key, code), share in leaks.items() if code == "all" and counts(key)}
    total = sum(share.k for share in places.values())
    if not total or len(places) < 2:
        return None
    key = max(places, key=lambda place: places[place].k)
    return (key, places[key], total) if places[key].k >= _MOSTLY * total else None


def _new_leak(report: Report, place: str) -> str | None:
    """The name that leaks most in a context or a "group:…", where it is not known as an old one yet."""
    group = place.partition(":")[2]
    counts = Counter(
        name
        for pair in report.answers
        if (pair.group == group if group else pair.context == place)
        for name in pair.leaks
    )
    known = {name.casefold() for name in report.old_names}
    name = max(counts, key=counts.__getitem__, default=None)
    return None if name is None or name.casefold() in known else name
