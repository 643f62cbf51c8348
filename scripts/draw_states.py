"""Draws voiceagent/core/STATES.md from voiceagent/core/tables.py: `python scripts/draw_states.py`."""

from __future__ import annotations

from pathlib import Path

from voiceagent.core import bystanders
from voiceagent.core.asides import MAX_ASIDES
from voiceagent.core.bargein import FAINT, LOUD, ORDINARY, QUICK, SETTLE, SOFT
from voiceagent.core.condense import HIGH, RECENT
from voiceagent.core.ear import STARVED_S, TAIL
from voiceagent.core.endpoint import ONSET_WINDOWS, WINDOW
from voiceagent.core.guess import MOST, PATIENCE
from voiceagent.core.loudness import WELL_KNOWN
from voiceagent.core.mouth import MOST_AHEAD
from voiceagent.core.playout import WAY_S
from voiceagent.core.questions import FIRST_SIGN
from voiceagent.core.tables import EAR, MOUTH, REACHABLE, REACHABLE_BY_VOICE, Ear, Mouth
from voiceagent.units import MODEL_RATE, VOICE_RATE

TARGET = Path(__file__).resolve().parent.parent / "voiceagent" / "core" / "STATES.md"


def milliseconds(samples: int) -> str:
    return f"{samples * 1000 // MODEL_RATE} ms"


def draw() -> str:
    parts = [
        "# The two machines of a call",
        "Drawn by `scripts/draw_states.py` from `tables.py`; do not edit.",
        "Events come in, actions go out (`events.py`, `actions.py`, `notices.py`). Two clocks only: input samples "
        "received (ear) and output samples sent and played (mouth).",
        "## Ear: the person",
        *[f"- **{ear.name}**: {ear.value}." for ear in Ear],
        "```mermaid\nstateDiagram-v2\n    [*] --> QUIET\n"
        + "\n".join(
            f"    {old.name} --> {new.name}: {voice.value}"
            for (old, voice), new in EAR.items()
            if old is not new or voice.name == "ON"
        )
        + "\n```",
        f"Voice goes on after {ONSET_WINDOWS} windows of {milliseconds(WINDOW)} at or above the threshold (one window "
        "within an utterance), and off at the first that falls well below it. An utterance begins `prefix_padding_ms` "
        f"before its voice and ends at most {milliseconds(TAIL)} behind its last word; `silence_duration_ms` of "
        f"silence end it, or {STARVED_S:g} s without news of the input. With an `eagerness` the silence depends on "
        f"what was said: after {milliseconds(FIRST_SIGN)} of it the engine is asked whether that is complete "
        "(`JudgeEnd`, `EndJudged`), and patience.py says how long to wait. Every end has its reason "
        "(`SpeechStopped.reason`).",
        "## Mouth: the assistant",
        *[f"- **{mouth.name}**: {mouth.value}." for mouth in Mouth],
        "```mermaid\nstateDiagram-v2\n    [*] --> IDLE\n"
        + "\n".join(f"    {old.name} --> {new.name}" for old, new in MOUTH)
        + "\n```",
        "| from | to | cause and actions |\n|---|---|---|\n"
        + "\n".join(f"| {old.name} | {new.name} | {cause} |" for (old, new), cause in MOUTH.items()),
        "The state is not stored: it follows from three facts (`tables.mouth_state`): a turn is live, something is "
        "audible, an interruption is being weighed.",
        "## Both",
        "Pairs that occur (x), and those that occur when only the voice asks for turns and may always interrupt (X):",
        "| |" + "".join(f" {mouth.name} |" for mouth in Mouth) + "\n|---|" + "---|" * len(Mouth) + "\n"
        + "\n".join(f"| {ear.name} |" + "".join(f" {mark(ear, mouth)} |" for mouth in Mouth) for ear in Ear),
        RULES.format(
            quick=milliseconds(QUICK), loud=milliseconds(LOUD), ordinary=milliseconds(ORDINARY),
            soft=milliseconds(SOFT), faint=milliseconds(FAINT), settle=milliseconds(SETTLE),
            lead=f"{MOST_AHEAD * 1000 // VOICE_RATE} ms", asides=MAX_ASIDES, way=f"{WAY_S * 1000:g} ms",
            well_known=f"{WELL_KNOWN * 32} ms", far=f"{bystanders.FAR_DB:g}", plain=f"{bystanders.PLAIN_DB:g}",
            doubt=f"{bystanders.DOUBT_DB:g}", span=f"{bystanders.SPAN * 32} ms", soon=f"{bystanders.SOON * 32} ms",
            waited=milliseconds(bystanders.WAITED), forgotten=milliseconds(bystanders.FORGOTTEN),
            long=f"{bystanders.LONG * 32} ms",
            patience=milliseconds(PATIENCE), guesses=MOST, high=f"{HIGH * 100:g} %", recent=RECENT,
        ),
    ]  # fmt: skip
    return "\n\n".join(parts).replace(".\n\n- **", ".\n- **")


def mark(ear: Ear, mouth: Mouth) -> str:
    if (ear, mouth) in REACHABLE_BY_VOICE:
        return "X"
    return "x" if (ear, mouth) in REACHABLE else ""


RULES = """## Rules between them

- **A turn is closed for the wire when it is sent, and over for the mouth when it is heard.** `TurnClosed(completed)`
  comes as soon as everything is generated and sent; the mouth stays SPEAKING until the last of it was heard. Between
  the two, an interruption still cuts what the history keeps (`Flush`, `ItemTruncated`), and a new turn may already be
  computed: its audio queues behind.
- **An interruption is weighed, in two stages** (bargein.py). A voice over our turn holds it, with the event that told
  of the voice: nothing more is sent, generation goes on (`Interruption` pending). What the client already holds plays
  on, so the pacing lead is how long we are still heard. Then it is confirmed (`SpeechStarted`, `CancelTurn`, `Flush`,
  `TurnClosed`, `ItemTruncated`) or dismissed: we go on at the exact sample, and the noise is forgotten, it is in no
  history and no transcript. Each is told with its reason.
- **How long that takes depends on what the line can do.** Where our audio is paced, at most {lead} ahead, we are
  silent while we wait, and can be patient (`barge_in` "patient"): {ordinary} of speech, {loud} if it is raised above
  what is usual for this person, {soft} if it is softer, falling or hardly speech, {faint} if it is so soft that it
  may be somebody else's or the rest of an echo; {settle} of silence end it before that. Several short voices without
  such a silence between them are one. Where audio is not paced, or farther ahead, the client has it all, holding back
  silences nobody, and {quick} of unbroken speech interrupt; the first silent window dismisses. So it is too where
  there is nothing to go on with: before we are to be heard at all.
- **Words count, too**: with an `eagerness` the engine is asked for the words of a voice that is weighed and falls
  silent (`JudgeEnd`); if they begin with "stop", "wait", "no" or the like, and are known before it is dismissed, it was
  meant.
- **Voices in the background are passed over** (bystanders.py, `barge_in` "patient"), over ours and while nobody
  speaks, once {well_known} of the caller's speech were heard: a voice that is {far} dB weaker over its last {span},
  or {plain} dB over its first {soon}. Until that is clear, one that is {doubt} dB weaker is not announced, and
  interrupts nobody. What is passed over is in no utterance (`PassedOver`; of a voice that was weighed, `Interruption`
  "faint"). Who is weak and insists is the caller, and how loudly they speak is learnt anew: who begins for the third
  time, each time {waited} to {forgotten} after the last, or speaks for {long} without a pause.
- **Protected**: `protected_ms` of a reply, once it is to be heard, are heard before a voice may hold it. Who speaks on
  behind them interrupts at once.
- **Who speaks again while we think** interrupts in the same way. What they said before stays in the history as its
  own item; the next reply answers both. (Joining both into one item would take back what the client was told.)
- **Not interruptible** (`interrupt_response` false, or the option of a turn that is live or still playing): the voice
  is heard as usual, and its answer waits until the live turn is closed.
- **Heard** is never more than the truth: a player that acknowledges is believed as far as time allows, of one that
  does not, the way to the ear is assumed to take {way}. If the client then says where its player stood
  (`ItemTruncate`),
  it is believed up to what time allows.
- **A voice that began before our turn** is no cough, however short: it is announced at once, and interrupts once it has
  lasted {quick} of the turn.
- **A reply may be begun on a guess** (`SessionConfig.speculation`, guess.py): {patience} into a silence, while no
  turn is live. It is no turn: neither machine knows of it, and nothing of it is told or kept. It becomes one when the
  utterance is over and the turn that is to be opened answers just what the guess heard and read (`TurnOpened`,
  `ConfirmTurn`, and at once all that was held). The utterance then ends where the guess thought it would. Anything that
  may be a voice, a commit, other settings or another turn drop it (`CancelTurn`); at most {guesses} are made about one
  utterance.
- **Turns beside the conversation** (`TurnOptions.conversation` false, asides.py), at most {asides} at once, have no
  part in these machines: no voice stops them, their audio is sent as it is made and is not heard, nothing of them is
  in the history. They read the conversation, and of a reply in the making what was told. Each is cancelled by its
  number; the end of the call and the engine's death end them all.
- **Old turns are condensed** (condense.py) when the conversation takes {high} of its room: all but the newest {recent}
  exchanges are read as words instead of sound (`Condensed`), once the words are known (`Transcribe` under a name of
  its own); what is still long is summed up beside the conversation (`StartTurn` with `sums_up`), if that is wished for.
  What is read changes only while nobody speaks and no turn is live, and is then read ahead (`Prepare`). Items stay as
  they are.
- **Everything late is dropped**: what the engine says of a turn that is not open changes nothing.
- **The engine may die**: the live turn fails, what was sent of it is heard and kept; until `EngineUp` every turn fails
  at once with `engine_down`.
- **A commit by the client** never asks for a reply. With turn detection on it takes what was received and not yet
  judged, too.
"""


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
