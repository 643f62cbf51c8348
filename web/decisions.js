// The server's decisions in words for the person at the page. Knows the protocol's reasons, and nothing that shows them.

const TURN_ENDS = {
  silence: (s) => `${s} of silence`,
  complete: (s) => `sounded complete, ${s} of silence`,
  incomplete: (s) => `sounded unfinished, so it waited ${s}`,
  spelled: (s) => `numbers or letters, so it waited ${s}`,
  longest_wait: (s) => `it waited as long as it may, ${s}`,
  no_input: () => "no more sound came",
  too_long: () => "the longest turn that there is",
};

const MEANT = {
  length: (s) => `because you spoke on for ${s}`,
  loud: () => "because you raised your voice",
  words: () => "because of what you said",
};

const NOT_MEANT = {
  backchannel: "went on: that was a word of assent",
  noise: "went on: that was a noise",
  faint: "went on: too faint to be you",
  short: "went on: too short to be meant",
  no_news: "went on: no more sound came",
};

/** Why a turn of the person's is over; "" if there is nothing to tell. */
export function turnEnd({ reason, silence_ms: ms }) {
  return TURN_ENDS[reason]?.(seconds(ms ?? 0)) ?? "";
}

/** What became of a voice over the agent's; "" if there is nothing to tell. */
export function interruption({ status, reason, voice_ms: ms }) {
  if (status === "confirmed") return MEANT[reason]?.(seconds(ms)) ?? "";
  return NOT_MEANT[reason] ?? "";
}

/** What the guess brought that this answer was begun on; "" if it was not. */
export function guess(speculation) {
  return speculation?.saved_ms > 0 ? `begun on a guess, ${Math.round(speculation.saved_ms)} ms sooner` : "";
}

export function seconds(ms) {
  return `${(ms / 1000).toFixed(2)} s`;
}
