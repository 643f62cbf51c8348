// The captions: one bubble per turn. Words go in as text nodes only; it knows neither sound nor protocol.

import { seconds } from "./decisions.js";

const FULL_BAR_MS = 2000; // a slower answer fills the whole bar

export class View {
  /** @param {Document} page */
  constructor(page) {
    this.log = page.getElementById("log");
    this.empty = page.getElementById("empty");
    this.notice = page.getElementById("notice");
    this.noticeText = page.getElementById("notice-text");
    this.bubbles = new Map();
    this.thoughts = new Map(); // of replies that are being thought about: {title, text}
    this.pending = null; // id of the bubble of speech that may come to nothing
  }

  /** The person began to speak. */
  listening(id) {
    if (this.pending) this.remove(this.pending);
    this.bubble(id, "user", "You").row.classList.add("waiting");
    this.pending = id;
  }

  /** What the person said is a turn now; its words may follow later. */
  committed(id) {
    if (this.pending === id) this.pending = null;
  }

  /** What the person said, or typed. */
  user(id, text) {
    const bubble = this.bubble(id, "user", "You");
    bubble.row.classList.remove("waiting");
    bubble.row.classList.toggle("unclear", text === "");
    this.write(bubble, text || "(no words recognised)");
    this.committed(id);
  }

  /** The agent begins to answer. */
  agent(id) {
    const bubble = this.bubble(id, "agent", "Agent");
    bubble.row.classList.add("waiting");
    bubble.row.setAttribute("aria-busy", "true");
  }

  agentText(id, delta) {
    const bubble = this.bubble(id, "agent", "Agent");
    bubble.row.classList.remove("waiting");
    this.write(bubble, bubble.text.data + delta);
  }

  /** What the agent thinks before it answers: small and folded, for those who want to look. */
  thought(id, delta) {
    if (!this.thoughts.has(id)) {
      const row = element("li", "thought");
      const fold = element("details");
      const title = element("summary", "", "Thinking");
      const text = document.createTextNode("");
      const words = element("p");
      words.append(text);
      fold.append(title, words);
      row.append(fold);
      this.thoughts.set(id, { title, text });
      this.add(row);
    }
    this.thoughts.get(id).text.data += delta;
    this.follow();
  }

  thoughtDone(id) {
    const thought = this.thoughts.get(id);
    if (thought) thought.title.textContent = "Thought";
    this.thoughts.delete(id);
  }

  agentDone(id) {
    const bubble = this.bubbles.get(id);
    if (!bubble) return;
    bubble.row.removeAttribute("aria-busy");
    if (bubble.text.data === "") this.remove(id);
  }

  /** Playing stopped after `ms` of this reply. */
  cutOff(id, ms) {
    const bubble = this.bubbles.get(id);
    if (!bubble || bubble.row.classList.contains("cut")) return;
    bubble.row.classList.add("cut");
    bubble.foot.append(element("span", "mark", `stopped after ${seconds(ms)}`));
  }

  /** A decision of the server's, in a few words below what it was about. `kind` gives the colour. */
  note(id, kind, text) {
    const bubble = this.bubbles.get(id);
    if (!bubble || text === "") return;
    const mark = element("span", `mark ${kind}`, text);
    if (kind === "turn") mark.setAttribute("aria-hidden", "true"); // of every turn: too much to be read aloud
    bubble.foot.append(mark);
    this.follow();
  }

  /** Of a reply that was cut: the words behind the first so many were never heard, and the agent does not know them. */
  heard(id, count) {
    const bubble = this.bubbles.get(id);
    if (!bubble) return;
    const words = (bubble.text.data + bubble.unheard.textContent).match(/\s*\S+/g) ?? [];
    bubble.text.data = words.slice(0, count).join("");
    bubble.unheard.textContent = words.slice(count).join("");
  }

  /**
   * How long an answer took to be heard: a bar, and behind it the parts one by one.
   *
   * @param {number} total milliseconds
   * @param {{name: string, kind: string, words: string, ms: number, from: number}[]} parts they add up to it
   */
  latency(id, total, parts) {
    const bubble = this.bubbles.get(id);
    if (!bubble) return;
    const full = Math.max(FULL_BAR_MS, total);
    const bar = element("span", "bar");
    bar.setAttribute("aria-hidden", "true");
    for (const { kind, ms } of parts) bar.append(share(kind, ms / full));
    const short = element("summary");
    short.append(bar, element("span", "", seconds(total)), element("span", "unseen", " to answer"));
    const list = element("ol");
    for (const { kind, words, ms, from } of parts) {
      const row = element("li");
      const track = element("span", "track");
      track.setAttribute("aria-hidden", "true");
      track.append(share("space", from / total), share(kind, ms / total));
      row.append(track, element("span", "ms", `${Math.round(ms)} ms`), element("span", "", words));
      list.append(row);
    }
    const meter = element("details", "latency");
    meter.append(short, list);
    meter.addEventListener("toggle", () => meter.open && meter.scrollIntoView({ block: "nearest" }));
    const old = bubble.foot.querySelector(".latency");
    meter.open = old?.open ?? false;
    if (old) old.replaceWith(meter);
    else bubble.foot.prepend(meter);
    this.follow();
  }

  tool(name, note) {
    const row = element("li", "tool");
    row.append(element("code", "", name), element("span", "", note));
    this.add(row);
  }

  /** A line between two conversations. */
  rule(text) {
    if (this.bubbles.size > 0) this.add(element("li", "rule", text));
  }

  /** All that was said and heard, as lines of text. */
  transcript() {
    const lines = [...this.log.children].map((row) => {
      const words = (row.querySelector(".words") ?? row).cloneNode(true);
      words.querySelector(".unheard")?.remove();
      return words.textContent.trim();
    });
    return lines.join("\n");
  }

  alert(text) {
    this.noticeText.textContent = text;
    this.notice.hidden = false;
  }

  calm() {
    this.notice.hidden = true;
  }

  bubble(id, side, who) {
    if (this.bubbles.has(id)) return this.bubbles.get(id);
    const row = element("li", `turn ${side}`);
    const words = element("p", "words");
    const text = document.createTextNode("");
    const foot = element("div", "foot");
    const unheard = element("span", "unheard"); // of the agent's
    unheard.title = "made, and never heard";
    words.append(element("span", "unseen", `${who}: `), text, unheard, element("span", "dots"));
    row.append(words, foot);
    const bubble = { id, row, text, unheard, foot };
    this.bubbles.set(id, bubble);
    this.add(row);
    return bubble;
  }

  write(bubble, text) {
    bubble.text.data = text;
    this.follow();
  }

  remove(id) {
    this.bubbles.get(id)?.row.remove();
    this.bubbles.delete(id);
  }

  add(row) {
    this.empty.hidden = true;
    this.log.hidden = false;
    this.log.append(row);
    this.follow(true);
  }

  /** Keeps the newest words in sight, unless the person has scrolled back to read. */
  follow(always = false) {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    if (always || scrollHeight - scrollTop - clientHeight < 120) this.log.scrollTop = scrollHeight;
  }
}

/** A piece of a bar: `part` of its width. */
function share(kind, part) {
  const piece = element("span", kind);
  piece.style.setProperty("--share", part);
  return piece;
}

function element(name, classes, text = "") {
  const made = document.createElement(name);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}
