"""Prints samples of the corpus so that a person can judge them. Makes nothing."""

from __future__ import annotations

from random import Random
from typing import Any


def samples(corpus: dict[str, Any], count: int) -> str:
    """Some of every group of dialogues, of every task, and of the generic sentences."""
    rng = Random(count)
    lines: list[str] = []
    for group in sorted({made["group"] for made in corpus["train"]}):
        lines.append(f"\n=== dialogues: {group}")
        for made in rng.sample([made for made in corpus["train"] if made["group"] == group], count):
            lines += _dialogue(made)
    for name in dict.fromkeys(task["name"] for task in corpus["tasks"]):
        lines.append(f"\n=== tasks: {name}")
        fitting = [task for task in corpus["tasks"] if task["name"] == name]
        for task in rng.sample(fitting, min(count, len(fitting))):
            lines += _task(task)
    for name in ("generic", "agent_generic", "agent_spanish"):
        lines.append(f"\n=== {name}")
        lines += rng.sample(corpus[name], min(3 * count, len(corpus[name])))
    return "\n".join(lines)


def _sound(sound: dict[str, Any]) -> str:
    how = [sound[name] for name in ("style", "background", "sex") if sound[name] not in ("", "plain")]
    if sound["language"] != "en":
        how.append(sound["language"])
    said = sound["text"] or sound["kind"]
    if sound["words"]:
        said += f" [cut from: {sound['whole']}]"
    return said + (f" ({', '.join(how)})" if how else "")


def _history(made: dict[str, Any]) -> list[str]:
    lines = [f"  SUMMARY {made['summary']}"] if made["summary"] else []
    return lines + [f"  ({said} -> {answered})" for said, answered in made["history"]]


def _dialogue(made: dict[str, Any]) -> list[str]:
    tools = [tool["function"]["name"] for tool in made["tools"] or []]
    lines = [f"- {made['intent']}: {made['system']!r} {tools or ''}", *_history(made)]
    for turn in made["turns"]:
        lines.append(f"  {_sound(turn['heard'])} -> {turn['reply']}  [{turn['intent']} {turn['source']}]")
        if tool := turn["tool"]:
            lines.append(f"     {tool['name']} {tool['arguments']} = {tool['result']} -> {tool['final']}")
    return lines


def _task(task: dict[str, Any]) -> list[str]:
    asked = _sound(task["heard"]) if task["heard"] else ""
    asked = " + ".join(filter(None, (asked, f"typed: {task['typed']!r}" if task["typed"] else "")))
    thought = f" <think>{task['thought']}</think>" if task["thought"] else ""
    way = "speech" if task["spoken"] else "text"
    lines = [f"- {task['instructions']!r} [{task['tested']}]", *_history(task)]
    return [*lines, f"  {asked} ->{thought} {task['reply']}  ({way}, {task['language']})"]
