// Where the time of one answer went, as the page shows it: the server's record and the page's own two ends of it.

/** Every part, in the order in which they pass; the first word is of the class that gives it its colour. */
const PARTS = [
  ["endpoint", "listen", "until it was clear that you had finished"],
  ["waiting", "wait", "until the answer before was made"],
  ["queue", "wait", "until the model had time"],
  ["encode", "read", "to read what you said"],
  ["prefill", "read", "to read the conversation, up to the first token"],
  ["thought", "think", "to think"],
  ["speech", "speak", "to speak the first sound"],
  ["pacing", "wait", "until it was sent"],
  ["way", "way", "on the way, and in the page"],
  ["play", "play", "until it was played"],
];

/**
 * The parts of an answer's wait, longest story first in time: those of no length are left out.
 *
 * @param {{typed: boolean, total: number, detect: number, answer: number, play: number}} measured by the page, ms
 * @param {{total_ms: number, parts: Object<string, number>} | undefined} server the event response.latency
 * @returns {{name: string, kind: string, words: string, ms: number, from: number}[]} they add up to `measured.total`
 */
export function waterfall(measured, server) {
  let from = 0;
  return PARTS.map(([name, kind, words]) => ({ name, kind, words, ms: lengths(measured, server)[name] ?? 0 }))
    .filter(({ ms }) => ms > 0)
    .map((part) => {
      from += part.ms;
      return { ...part, from: from - part.ms };
    });
}

function lengths({ detect, answer, play }, server) {
  if (!server) return { endpoint: detect, speech: answer, play };
  // The server counts from the last word, or the request, to the first sound that it sent; what of the page's time is
  // beyond that was spent between the two. The clocks differ a little: then the server's parts give way.
  const arrived = detect + answer;
  const scale = server.total_ms > arrived ? arrived / server.total_ms : 1;
  const parts = Object.fromEntries(Object.entries(server.parts).map(([name, ms]) => [name, ms * scale]));
  return { ...parts, way: arrived - server.total_ms * scale, play };
}
