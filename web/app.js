// The page: buttons, settings and devices, and how they hang together with the conversation.

import { MicrophoneError, Microphone, Speaker, openAudio, toBase64 } from "./audio.js";
import { seconds } from "./decisions.js";
import { Dialogue } from "./dialogue.js";
import { Link } from "./link.js";
import { Strip, height } from "./strip.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const STORED = "voiceagent.settings";
const KEY = "voiceagent.key";
const DEAF_MS = 6000; // even a quiet room is not silent

const view = new View(document);
const strip = new Strip($("strip"));
const link = new Link({ onState: onLink, onEvent: (event) => dialogue.receive(event), onServer });
const onDecision = (kind) => strip.mark(kind);
const dialogue = new Dialogue({ link, view, onChange: show, onDecision, onReady, settings });

let context = null;
let speaker = null;
let microphone = null;
let talking = false; // the microphone is, or should be, open
let muted = false;
let pressed = false; // the space bar, which lets a muted microphone speak
let micLevel = 0;
let deafMs = 0; // so long the microphone has given no sound since it was opened; NaN = it did
let unsent = null; // typed while there was no connection

// --- the session --------------------------------------------------------------------------------------------------

async function prepare() {
  if (!context) {
    context = await openAudio();
    speaker = new Speaker(context, {
      onStart: (id, at) => dialogue.onPlaying(id, at),
      onEnd: show,
      onPlace: (id, ms) => dialogue.onPlace(id, ms),
    });
    speaker.volume = settings().volume;
    dialogue.speaker = speaker;
    requestAnimationFrame(animate);
  }
  await context.resume();
}

async function startTalking() {
  talking = true;
  view.calm();
  show();
  try {
    await prepare();
    const opened = new Microphone(context, { onFrame, onLost: onMicrophoneLost });
    microphone = opened;
    opened.mute(muted);
    deafMs = 0;
    await opened.open();
    if (microphone !== opened) return opened.close(); // ended while the browser was asking
  } catch (error) {
    closeMicrophone();
    talking = false;
    complain(error);
    return;
  }
  link.open();
  show();
}

function complain(error) {
  view.alert(error instanceof MicrophoneError ? error.message : `Sound does not work here: ${error.message}`);
  show();
}

function stopTalking() {
  talking = false;
  dialogue.stop();
  closeMicrophone();
  link.close();
  dialogue.reset();
  show();
}

function closeMicrophone() {
  microphone?.close();
  microphone = null;
  micLevel = 0;
}

function onFrame(pcm, level) {
  micLevel = muted && !pressed ? 0 : level;
  listenForSilence(level);
  if (link.online) dialogue.hear(toBase64(pcm));
}

/** A microphone that is switched off sends zeros for ever, and nothing else would tell. */
function listenForSilence(level) {
  if (level > 0) deafMs = NaN;
  else if (!muted) deafMs += 40;
  if (deafMs !== DEAF_MS) return;
  view.alert("The microphone gives no sound at all. Is it switched off, or another one chosen in the browser's settings?");
}

function onMicrophoneLost() {
  stopTalking();
  view.alert("The microphone was disconnected. Plug it in, then press Talk again.");
}

async function say(text) {
  view.calm();
  try {
    await prepare();
  } catch (error) {
    return complain(error);
  }
  if (dialogue.defaults && link.online) {
    dialogue.say(text);
  } else {
    unsent = text;
    link.open();
  }
  show();
}

function onReady(session) {
  $("think-row").hidden = !dialogue.canThink;
  view.rule("new conversation: the agent remembers nothing from above");
  $("model").textContent = session.model;
  $("instructions").placeholder = session.instructions || "The server's own instructions";
  if (unsent !== null) dialogue.say(unsent);
  unsent = null;
}

function onServer(model) {
  const chosen = stored().voice ?? "";
  const voices = model.voices ?? [];
  $("voice").replaceChildren(new Option("The server's choice", ""), ...voices.map((v) => new Option(pretty(v), v)));
  $("voice").value = voices.includes(chosen) ? chosen : "";
}

function onLink(state) {
  if (state.name === "refused") {
    view.alert(state.reason);
    $("key-row").hidden = !state.needsKey && !link.key;
    if (state.needsKey) $("settings").showModal();
    talking = false;
    closeMicrophone();
  }
  if (state.name === "waiting") {
    if (!state.resumes) {
      dialogue.defaults = null;
      dialogue.reset();
    }
    view.alert(`${state.reason} Trying again by itself.`);
  }
  if (state.name === "online") view.calm();
  show();
}

// --- what is seen -------------------------------------------------------------------------------------------------

const STATUS = {
  off: ["Ready when you are", "Press the button and speak, or type a question."],
  connecting: ["Connecting", "One moment."],
  waiting: ["Reconnecting", "The server is away; this page goes on trying."],
  refused: ["Not connected", "See the message above."],
  asking: ["Waiting for the microphone", "Your browser may be asking for permission."],
  muted: ["Muted", "The agent cannot hear you. Hold Space to speak, or press M."],
  hearing: ["Hearing you", "Speak freely; a short pause ends your turn."],
  thinking: ["Thinking", "The answer is on its way."],
  speaking: ["Speaking", "Just talk to interrupt."],
  weighing: ["Paused for you", "Go on speaking to take over; a cough lets the agent go on."],
  listening: ["Listening", "Ask me something."],
  typing: ["Connected", "Type a question, or press the button to speak."],
};

function status() {
  if (talking && !microphone?.stream) return "asking";
  if (!link.online) return link.state.name;
  if (dialogue.weighing) return "weighing";
  if (speaker?.busy) return "speaking";
  if (dialogue.hearing) return "hearing";
  if (dialogue.thinking) return "thinking";
  if (!talking) return "typing";
  return muted && !pressed ? "muted" : "listening";
}

function show() {
  const now = status();
  document.body.dataset.status = now;
  document.body.dataset.link = link.state.name;
  const [title, hint] = STATUS[now];
  setText($("status"), title);
  setText($("hint"), hint);
  setText($("connection"), LINK_WORDS[link.state.name]);
  setText($("talk-label"), talking ? "End" : "Talk");
  $("talk").setAttribute("aria-label", talking ? "End the conversation" : "Talk: start the conversation");
  $("talk").dataset.on = talking;
  $("mute").dataset.on = muted;
  setText($("mute-label"), muted ? "Unmute" : "Mute");
  $("stop").disabled = !(speaker?.busy || dialogue.thinking);
  const waits = dialogue.latencies.map((parts) => parts.total).sort((a, b) => a - b);
  setText($("answers"), waits.length ? String(waits.length) : "–");
  setText($("last"), waits.length ? seconds(dialogue.latencies.at(-1).total) : "–");
  setText($("median"), waits.length ? seconds(waits[waits.length >> 1]) : "–");
}

const LINK_WORDS = {
  off: "Offline",
  connecting: "Connecting",
  online: "Connected",
  waiting: "Reconnecting",
  refused: "Refused",
};

/** Only real changes, so that a screen reader does not repeat itself. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function animate(now) {
  requestAnimationFrame(animate);
  const agentLevel = speaker.report.running ? speaker.report.level : 0;
  $("stage").style.setProperty("--user-level", height(micLevel).toFixed(3));
  $("stage").style.setProperty("--agent-level", height(agentLevel).toFixed(3));
  if (talking || speaker.busy) strip.tick(now, micLevel, agentLevel);
}

// --- settings -----------------------------------------------------------------------------------------------------

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}

/** The form as the conversation needs it. A higher sensitivity takes fainter sounds for speech. */
function settings() {
  return {
    voice: $("voice").value,
    instructions: $("instructions").value.trim(),
    threshold: Number((1 - $("sensitivity").valueAsNumber / 100).toFixed(2)),
    turns: $("turns").value,
    volume: $("volume").valueAsNumber / 100,
    tools: $("tools").checked,
    think: $("think").checked,
  };
}

function restoreSettings() {
  const { instructions = "", sensitivity = 50, turns = "", volume = 100, tools = true, think = false } = stored();
  $("instructions").value = instructions;
  $("sensitivity").value = sensitivity;
  $("turns").value = turns;
  $("sensitivity").disabled = turns !== ""; // it is of the other way
  $("volume").value = volume;
  $("tools").checked = tools;
  $("think").checked = think;
  link.key = sessionStorage.getItem(KEY) ?? "";
  $("key").value = link.key;
  $("key-row").hidden = link.key === "";
}

function saveSettings() {
  const { voice, instructions, turns, volume, tools, think } = settings();
  $("sensitivity").disabled = turns !== "";
  const kept = { voice, instructions, turns, tools, think, sensitivity: $("sensitivity").valueAsNumber };
  localStorage.setItem(STORED, JSON.stringify({ ...kept, volume: $("volume").valueAsNumber }));
  if (speaker) speaker.volume = volume;
  link.key = $("key").value.trim();
  sessionStorage.setItem(KEY, link.key);
  if (link.online && dialogue.defaults) dialogue.configure();
  if (link.state.needsKey && link.key && unsent !== null) link.open();
}

function pretty(voice) {
  const words = voice.replace(/^default_/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// --- buttons and keys ---------------------------------------------------------------------------------------------

function toggleMute() {
  muted = !muted;
  pressed = false;
  microphone?.mute(muted);
  show();
}

/** Held down, the space bar is the button of a walkie-talkie for who is muted. */
function press(down) {
  if (pressed === down || (down && !muted)) return;
  pressed = down;
  microphone?.mute(muted && !pressed);
  show();
}

function saveTranscript() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${view.transcript()}\n`], { type: "text/plain" }));
  link.download = `conversation-${new Date().toISOString().slice(0, 16).replace(":", "")}.txt`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // the browser is still reading it
}

$("save").addEventListener("click", saveTranscript);
$("talk").addEventListener("click", () => (talking ? stopTalking() : startTalking()));
$("mute").addEventListener("click", toggleMute);
$("stop").addEventListener("click", () => dialogue.stop());
$("notice-close").addEventListener("click", () => view.calm());
$("open-settings").addEventListener("click", () => $("settings").showModal());
$("settings").addEventListener("change", saveSettings);
$("settings").addEventListener("click", ({ target }) => target === $("settings") && $("settings").close());
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  $("text").value = "";
  if (text) say(text);
});
for (const chip of document.querySelectorAll("#empty button")) {
  chip.addEventListener("click", () => say(chip.textContent));
}
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select") || $("settings").open;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === " " && muted && !typing && !event.target.matches("button, summary")) {
    event.preventDefault();
    press(true);
  } else if (event.key === "Escape" && !$("settings").open) dialogue.stop();
  else if (event.key.toLowerCase() === "m" && !typing) toggleMute();
});

addEventListener("keyup", (event) => event.key === " " && press(false));
addEventListener("blur", () => press(false));

restoreSettings();
show();

/** For tests and for the curious: what was really heard. */
window.voiceagent = Object.freeze({
  get status() {
    return status();
  },
  get played() {
    return speaker?.played ?? 0; // samples at 24 kHz
  },
  get peak() {
    return speaker?.report.peak ?? 0;
  },
  get paused() {
    return speaker?.paused ?? false;
  },
  get underruns() {
    return speaker?.report.underruns ?? 0;
  },
  get latencies() {
    return dialogue.latencies.map((parts) => ({ ...parts }));
  },
});
