// The conversation as the page sees it: server events to captions and sound, and what the page has to say back.
// It touches neither the socket nor the document: `link`, `view` and the speaker are given to it.

import { fromBase64 } from "./audio.js";
import { guess, interruption, turnEnd } from "./decisions.js";
import { TOOLS, answer } from "./tools.js";
import { waterfall } from "./waterfall.js";

const MAX_TOOL_ROUNDS = 4; // after one question; a model that calls tools for ever must stop
// Answers to something that had settled itself by the time that the server read it.
const HARMLESS = new Set(["response_cancel_not_active", "conversation_already_has_active_response"]);
const TRUNCATE = "truncate_"; // event ids of truncations: the server may have dropped the item already

export class Dialogue {
  /**
   * @param {{link: object, view: object, onChange: () => void, onDecision: (kind: string) => void,
   *   onReady: (session: object) => void, settings: () => object}} parts `settings` gives {voice, instructions,
   *   threshold, turns, tools, think}; decisions are "pending", "confirmed", "dismissed" and "turn"
   */
  constructor({ link, view, onChange, onDecision, onReady, settings }) {
    this.link = link;
    this.view = view;
    this.onChange = onChange;
    this.onDecision = onDecision;
    this.onReady = onReady;
    this.settings = settings;
    this.speaker = null;
    this.latencies = [];
    this.reset();
  }

  reset() {
    this.hearing = false; // the person is speaking
    this.active = null; // id of the response in progress
    this.asked = false; // a response was requested and not yet begun
    this.wanted = false; // request one as soon as the active one is done
    this.cut = new Set(); // items and responses of which nothing more is to be heard
    this.cutNext = false; // the response that is about to begin was stopped already
    this.responses = new Map(); // of items with a voice: their response
    this.place = null; // how much was heard, as it was last said
    this.weighing = null; // id of the response over which a voice was noticed, until it is clear what that was
    this.calls = [];
    this.atServer = new Map(); // names of tools that the server runs, by their calls
    this.rounds = 0;
    this.measured = new Map(); // of items that were heard: the parts of their latency
    this.waterfalls = new Map(); // of items: what the server says of it
    this.turn = null; // times of the question that is being answered, for its latency
  }

  get thinking() {
    return this.active !== null || this.asked || this.wanted;
  }

  // --- what the page says -------------------------------------------------------------------------------------

  /** One 40 ms frame of the microphone, in base64. */
  hear(audio) {
    this.link.send({ type: "input_audio_buffer.append", audio });
  }

  /** Sends the settings; they hold from the next turn on. */
  configure() {
    const { voice, instructions, threshold, turns, tools, think } = this.settings();
    const when = { create_response: true, interrupt_response: true };
    const detection = turns ? { type: "semantic_vad", eagerness: turns } : { type: "server_vad", threshold };
    const session = {
      type: "realtime",
      output_modalities: ["audio"],
      instructions: instructions || this.defaults.instructions,
      tools: tools ? TOOLS : [],
      audio: {
        input: {
          transcription: this.defaults.audio.input.transcription ?? { model: "builtin" },
          turn_detection: { ...detection, ...when },
        },
        output: { voice: voice || this.defaults.audio.output.voice },
      },
    };
    if (this.canThink) session.think = think ? "on" : "off";
    this.link.send({ type: "session.update", session });
  }

  /** Whether the model can think before it answers: the session says null where it cannot. */
  get canThink() {
    return typeof this.defaults?.think === "string";
  }

  /** A typed question. */
  say(text) {
    this.stop();
    const id = `item_page_${crypto.getRandomValues(new Uint32Array(2)).join("")}`.slice(0, 32);
    const item = { id, type: "message", role: "user", content: [{ type: "input_text", text }] };
    if (!this.link.send({ type: "conversation.item.create", item })) return false;
    this.view.user(id, text);
    this.rounds = 0;
    this.turn = { spokenAt: performance.now(), heardAt: performance.now(), typed: true };
    this.request();
    return true;
  }

  /** Stops the voice, and the reply behind it. */
  stop() {
    this.wanted = false;
    if (this.active !== null || this.asked) this.link.send({ type: "response.cancel" });
    this.cutNext = this.asked;
    this.silence();
  }

  request() {
    if (this.active !== null || this.asked) {
      this.wanted = true;
    } else {
      this.asked = this.link.send({ type: "response.create" });
      this.wanted = false;
    }
    this.onChange();
  }

  /** Silence at once, and the truth about what was heard of each reply. */
  async silence() {
    if (this.active !== null) this.cut.add(this.active);
    if (!this.speaker?.busy) return;
    for (const id of this.speaker.queued) this.cut.add(id);
    const heard = await this.speaker.flush();
    for (const { id, ms } of heard) {
      this.link.send({
        type: "conversation.item.truncate",
        event_id: TRUNCATE + id,
        item_id: id,
        content_index: 0,
        audio_end_ms: ms,
      });
      this.view.cutOff(id, ms);
    }
    this.onChange();
  }

  /** How much of an item the person has heard: the conversation keeps no more than that. */
  onPlace(id, ms) {
    const response_id = this.responses.get(id);
    if (!response_id) return;
    this.place = { type: "output_audio_buffer.played", response_id, audio_end_ms: ms };
    this.link.send(this.place);
  }

  // --- what the server says -----------------------------------------------------------------------------------

  receive(event) {
    HANDLERS[event.type]?.call(this, event);
    this.onChange();
  }

  onCreated({ session }) {
    this.reset();
    this.defaults = session;
    this.configure();
    this.onReady(session);
  }

  /** The line was lost and is there again, and the session with it. What was on its way to the server is not. */
  onResumed() {
    this.asked = false;
    if (this.place) this.link.send(this.place);
  }

  onSpeechStarted({ item_id }) {
    this.hearing = true;
    this.silence();
    this.view.listening(item_id);
  }

  /**
   * A voice over the agent's. Until it is clear whether somebody means to interrupt, the agent is silent; if nobody
   * did, it goes on where it stopped.
   */
  async onInterruption(event) {
    const { response_id, status } = event;
    this.onDecision(status);
    if (status === "pending") {
      this.weighing = response_id;
      this.speaker?.pause();
      return;
    }
    this.weighing = null;
    if (status === "confirmed") await this.silence();
    else this.speaker?.resume();
    const [id] = [...this.responses].find(([, response]) => response === response_id) ?? [];
    this.view.note(id, status, interruption(event));
  }

  /** What the conversation keeps of a reply; of one that was cut it is less than was made. */
  onHeard({ item_id, words, heard_words }) {
    if (heard_words < words) this.view.heard(item_id, heard_words);
  }

  onSpeechStopped(event) {
    const heardAt = performance.now();
    const { item_id, silence_ms = 0 } = event;
    this.hearing = false;
    this.onDecision("turn");
    this.view.note(item_id, "turn", turnEnd(event));
    this.rounds = 0;
    this.turn = { spokenAt: heardAt - silence_ms, heardAt, typed: false };
  }

  onCommitted({ item_id }) {
    this.view.committed(item_id);
  }

  onTranscript({ item_id, transcript }) {
    this.view.user(item_id, transcript.trim());
  }

  onResponse({ response }) {
    this.active = response.id;
    this.asked = false;
    if (this.cutNext) this.cut.add(response.id);
    this.cutNext = false;
  }

  onOutputItem({ item }) {
    if (item.type === "message") this.view.agent(item.id);
  }

  onThought({ response_id, delta }) {
    if (!this.cut.has(response_id)) this.view.thought(response_id, delta);
  }

  onThoughtDone({ response_id }) {
    this.view.thoughtDone(response_id);
  }

  onText({ response_id, item_id, delta }) {
    if (!this.cut.has(response_id)) this.view.agentText(item_id, delta);
  }

  onAudio({ response_id, item_id, delta }) {
    if (this.cut.has(response_id) || this.cut.has(item_id) || !this.speaker) return;
    if (this.turn && !this.turn.itemId) {
      this.turn.itemId = item_id;
      this.turn.answeredAt = performance.now();
    }
    this.responses.set(item_id, response_id);
    this.speaker.push(item_id, fromBase64(delta));
  }

  onAudioDone({ item_id }) {
    this.speaker?.end(item_id);
  }

  onItemDone({ item }) {
    if (item.type === "message") this.view.agentDone(item.id);
    else if (item.type === "function_call" && item.status === "completed") this.calls.push(item);
  }

  onDone({ response }) {
    this.active = null;
    if (response.status === "failed") {
      const detail = response.status_details?.error?.message;
      this.view.alert(detail ? `The reply failed: ${detail}` : "The reply failed. Please ask again.");
    }
    this.useTools(response.status === "completed");
    if (this.wanted) this.request();
  }

  useTools(goOn) {
    const calls = this.calls.splice(0);
    for (const { call_id, name, arguments: json } of calls) {
      const { output, note } = answer(name, json);
      this.view.tool(name, note);
      const item = { type: "function_call_output", call_id, output: JSON.stringify(output) };
      this.link.send({ type: "conversation.item.create", item });
    }
    if (calls.length > 0 && goOn && this.rounds < MAX_TOOL_ROUNDS) {
      this.rounds += 1;
      this.wanted = true;
    }
  }

  onServerTool({ item_id, name }) {
    this.atServer.set(item_id, name);
  }

  /** What a tool that the server runs has returned: shown, and nothing else to do. */
  onServerResult({ item_id, output, failed, pending }) {
    const words = pending ? "goes on looking" : output.slice(0, 200);
    this.view.tool(this.atServer.get(item_id) ?? "tool", `${failed ? "failed: " : "at the server: "}${words}`);
    if (!pending) this.atServer.delete(item_id);
  }

  onError({ error }) {
    if (error.event_id?.startsWith(TRUNCATE)) return;
    this.asked = false;
    if (!HARMLESS.has(error.code)) this.view.alert(error.message);
  }

  // --- what the speaker says ----------------------------------------------------------------------------------

  /** The first sample of an item is heard at `at`, on the clock of performance.now(). */
  onPlaying(id, at) {
    const { turn } = this;
    if (turn?.itemId === id) {
      this.turn = null;
      const parts = {
        typed: turn.typed,
        detect: Math.max(0, turn.heardAt - turn.spokenAt),
        answer: Math.max(0, turn.answeredAt - turn.heardAt),
        play: Math.max(0, at - turn.answeredAt),
      };
      parts.total = parts.detect + parts.answer + parts.play;
      this.latencies.push(parts);
      this.measured.set(id, parts);
      this.showLatency(id);
    }
    this.onChange();
  }

  /** What the server knows of the wait comes when the answer is made, before or after it begins to play. */
  onLatency({ item_id, total_ms, parts, speculation }) {
    this.waterfalls.set(item_id, { total_ms, parts });
    this.showLatency(item_id);
    this.view.note(item_id, "guess", guess(speculation));
  }

  showLatency(id) {
    const measured = this.measured.get(id);
    if (measured) this.view.latency(id, measured.total, waterfall(measured, this.waterfalls.get(id)));
  }
}

const HANDLERS = {
  "session.created": Dialogue.prototype.onCreated,
  "session.resumed": Dialogue.prototype.onResumed,
  "input_audio_buffer.speech_started": Dialogue.prototype.onSpeechStarted,
  "response.heard": Dialogue.prototype.onHeard,
  "response.interruption": Dialogue.prototype.onInterruption,
  "input_audio_buffer.speech_stopped": Dialogue.prototype.onSpeechStopped,
  "input_audio_buffer.committed": Dialogue.prototype.onCommitted,
  "conversation.item.input_audio_transcription.completed": Dialogue.prototype.onTranscript,
  "response.created": Dialogue.prototype.onResponse,
  "response.output_item.added": Dialogue.prototype.onOutputItem,
  "response.thought.delta": Dialogue.prototype.onThought,
  "response.thought.done": Dialogue.prototype.onThoughtDone,
  "response.output_audio_transcript.delta": Dialogue.prototype.onText,
  "response.output_text.delta": Dialogue.prototype.onText,
  "response.output_audio.delta": Dialogue.prototype.onAudio,
  "response.output_audio.done": Dialogue.prototype.onAudioDone,
  "response.output_item.done": Dialogue.prototype.onItemDone,
  "output_audio_buffer.cleared": Dialogue.prototype.silence,
  "response.latency": Dialogue.prototype.onLatency,
  "server_tool.called": Dialogue.prototype.onServerTool,
  "server_tool.returned": Dialogue.prototype.onServerResult,
  "response.done": Dialogue.prototype.onDone,
  error: Dialogue.prototype.onError,
};
