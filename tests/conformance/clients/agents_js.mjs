// @openai/agents-realtime: node agents_js.mjs ws://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { TOOL, check, frames, run, spoken } from "./scenarios.mjs";

const [base, question, weather] = process.argv.slice(2);

class Call {
  constructor({ tools = [], config = {} } = {}) {
    const agent = new RealtimeAgent({ name: "desk", instructions: "You are the voice assistant of harbor house.", tools });
    this.transport = new OpenAIRealtimeWebSocket({ useInsecureApiKey: true });
    this.session = new RealtimeSession(agent, { transport: this.transport, model: "pocket", config });
    this.log = [];
    this.errors = [];
    this.sound = 0;
    this.interrupted = 0;
    this.waiting = [];
    this.transport.on("*", (event) => {
      this.log.push(event);
      this.waiting = this.waiting.filter((wait) => !wait(event));
    });
    this.session.on("audio", (event) => (this.sound += event.data.byteLength / 48000));
    this.session.on("audio_interrupted", () => (this.interrupted += 1));
    this.session.on("error", (error) => this.errors.push(error));
  }
  static async open(options) {
    const call = new Call(options);
    await call.session.connect({ apiKey: "none", url: `${base}/realtime?model=pocket` });
    await call.until("session.updated");
    return call;
  }
  until(type, from = 0, when = () => true) {
    const wanted = (event) => event.type === type && when(event);
    const seen = this.log.slice(from).find(wanted);
    if (seen) return Promise.resolve(seen);
    return new Promise((done) => this.waiting.push((event) => wanted(event) && (done(event), true)));
  }
  speak(path) {
    for (const frame of frames(spoken(path))) {
      const bytes = new Uint8Array(frame);
      this.session.sendAudio(bytes.buffer);
    }
  }
  said() {
    const items = this.session.history.filter((item) => item.role === "assistant");
    return items.map((item) => item.content.map((part) => part.transcript ?? part.text ?? "").join("")).join(" | ");
  }
  close() {
    check(!this.errors.length, `errors: ${JSON.stringify(this.errors)}`);
    this.session.close();
  }
}

const scenarios = {
  async connect() {
    (await Call.open()).close();
  },
  async configure() {
    const call = await Call.open({ config: { turnDetection: { type: "server_vad", silenceDurationMs: 400 } } });
    // its first update may only be about tracing, if it is greeted before it has sent its settings
    const settled = ({ session }) => session.audio.input.turn_detection.silence_duration_ms === 400;
    const { session } = await call.until("session.updated", 0, settled);
    check(session.instructions.includes("harbor house"), JSON.stringify(session));
    call.close();
  },
  async spoken() {
    const call = await Call.open();
    call.speak(question);
    await call.until("response.done");
    check(call.sound > 0.5, "no sound");
    const roles = call.session.history.map((item) => item.role);
    check(roles.join() === "user,assistant", `history: ${roles}`);
    call.close();
    return call.said();
  },
  async typed() {
    const call = await Call.open();
    call.session.sendMessage("do you have a pool");
    await call.until("response.done");
    check(call.sound > 0.5 && call.said(), "no sound or no words");
    call.close();
    return call.said();
  },
  async tool() {
    let asked = null;
    const lookup = tool({
      name: TOOL.name,
      description: TOOL.description,
      parameters: { ...TOOL.parameters, additionalProperties: false },
      strict: false,
      execute: async (input) => ((asked = input), { weather: "sunny", temperature: 20 }),
    });
    const call = await Call.open({ tools: [lookup] });
    call.speak(weather);
    const first = await call.until("response.done");
    await call.until("response.done", call.log.indexOf(first) + 1);
    check(asked?.city, `asked for ${JSON.stringify(asked)}`);
    check(call.said().includes("sunny"), call.said());
    call.close();
    return call.said();
  },
  async barge_in() {
    const call = await Call.open();
    call.session.sendMessage("count from one to six");
    await call.until("response.output_audio.delta");
    const from = call.log.length;
    call.speak(question);
    await call.until("input_audio_buffer.speech_started", from);
    const done = await call.until("response.done", from);
    await call.until("response.done", call.log.indexOf(done) + 1);
    check(call.interrupted >= 1, "the session was not told of the interruption");
    call.close();
    return `interrupted ${call.interrupted} times`;
  },
  async cancel() {
    const call = await Call.open();
    call.session.sendMessage("count from one to six");
    await call.until("response.output_audio.delta");
    call.session.interrupt();
    const done = await call.until("response.done");
    check(done.response.status === "cancelled", JSON.stringify(done.response.status_details));
    call.session.sendMessage("thank you");
    await call.until("response.done", call.log.indexOf(done) + 1);
    call.close();
  },
  async out_of_band() {
    const call = await Call.open();
    const content = [{ type: "input_text", text: "do you have parking" }];
    const input = [{ type: "message", role: "user", content }];
    ask(call, { conversation: "none", input, metadata: { topic: "aside" }, output_modalities: ["text"] });
    const done = await call.until("response.done");
    check(done.response.metadata?.topic === "aside", JSON.stringify(done.response));
    call.close();
  },
  async reconnect() {
    for (let i = 0; i < 2; i++) {
      const call = await Call.open();
      call.session.sendMessage("hello");
      await call.until("response.done");
      call.close();
    }
  },
};

function ask(call, response) {
  call.transport.sendEvent({ type: "response.create", response });
}

await run(scenarios, ["@openai/agents-realtime"]);
