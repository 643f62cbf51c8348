// The scenarios of the openai package for JavaScript, whichever socket it uses.
import OpenAI from "openai";
import { TOOL, check, frames, run, spoken } from "./scenarios.mjs";

const [baseURL, question, weather] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none" });
let connect; // (client) => { connection, vanish }, set by runWith

class Call {
  constructor({ connection, vanish }) {
    this.connection = connection;
    this.vanish = vanish; // without a goodbye, where the socket has such a way
    this.log = [];
    this.waiting = [];
    connection.on("event", (event) => {
      this.log.push(event);
      this.waiting = this.waiting.filter((wait) => !wait(event));
    });
    connection.on("error", (error) => this.log.push({ type: "error", error: error.error ?? String(error) }));
  }
  static async open() {
    const call = new Call(connect(client));
    await call.until("session.created");
    return call;
  }
  until(type, from = 0) {
    const seen = this.log.slice(from).find((event) => event.type === type);
    if (seen) return Promise.resolve(seen);
    return new Promise((done) => this.waiting.push((event) => event.type === type && (done(event), true)));
  }
  async configure(session) {
    const from = this.log.length;
    this.connection.send({ type: "session.update", session: { type: "realtime", ...session } });
    return (await this.until("session.updated", from)).session;
  }
  async say(text) {
    const from = this.log.length;
    const content = [{ type: "input_text", text }];
    this.connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.connection.send({ type: "response.create" });
    return { from, response: (await this.until("response.done", from)).response };
  }
  speak(path) {
    for (const frame of frames(spoken(path)))
      this.connection.send({ type: "input_audio_buffer.append", audio: frame.toString("base64") });
  }
  sound(from) {
    const deltas = this.log.slice(from).filter((event) => event.type === "response.output_audio.delta");
    return Buffer.concat(deltas.map((event) => Buffer.from(event.delta, "base64"))).length / 48000;
  }
  errors() {
    const found = this.log.filter((event) => event.type === "error");
    check(!found.length, `errors: ${JSON.stringify(found)}`);
  }
  close() {
    this.connection.close();
  }
}

const scenarios = {
  async connect() {
    const call = await Call.open();
    call.errors();
    call.close();
  },
  async configure() {
    const call = await Call.open();
    const session = await call.configure({ instructions: "You work at the front desk.", tools: [TOOL], output_modalities: ["text"] });
    check(session.instructions.includes("front desk") && session.tools[0].name === "get_weather", JSON.stringify(session));
    call.errors();
    call.close();
  },
  async spoken() {
    const call = await Call.open();
    const from = call.log.length;
    call.speak(question);
    const { response } = await call.until("response.done", from);
    check(response.status === "completed" && call.sound(from) > 0.5, JSON.stringify(response));
    call.errors();
    call.close();
    return response.output[0].content[0].transcript;
  },
  async typed() {
    const call = await Call.open();
    const { from, response } = await call.say("do you have a pool");
    check(response.status === "completed" && call.sound(from) > 0.5, JSON.stringify(response));
    call.errors();
    call.close();
    return response.output[0].content[0].transcript;
  },
  async tool() {
    const call = await Call.open();
    await call.configure({ tools: [TOOL] });
    let from = call.log.length;
    call.speak(weather);
    const { response } = await call.until("response.done", from);
    const asked = response.output.find((item) => item.type === "function_call");
    check(asked?.name === "get_weather" && JSON.parse(asked.arguments).city, JSON.stringify(response.output));
    from = call.log.length;
    const output = JSON.stringify({ weather: "sunny", temperature: 20 });
    call.connection.send({ type: "conversation.item.create", item: { type: "function_call_output", call_id: asked.call_id, output } });
    call.connection.send({ type: "response.create" });
    const told = (await call.until("response.done", from)).response.output[0].content[0].transcript;
    check(told.includes("sunny"), told);
    call.errors();
    call.close();
    return told;
  },
  async barge_in() {
    const call = await Call.open();
    const content = [{ type: "input_text", text: "count from one to six" }];
    call.connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    call.connection.send({ type: "response.create" });
    const first = await call.until("response.output_audio.delta");
    const from = call.log.length;
    call.speak(question);
    await call.until("input_audio_buffer.speech_started", from);
    call.connection.send({ type: "conversation.item.truncate", item_id: first.item_id, content_index: 0, audio_end_ms: 100 });
    await call.until("conversation.item.truncated", from);
    const done = await call.until("response.done", from);
    check(["cancelled", "completed"].includes(done.response.status), JSON.stringify(done));
    const next = call.log.indexOf(done) + 1;
    check((await call.until("response.done", next)).response.status === "completed", "no answer to the interruption");
    call.errors();
    call.close();
    return done.response.status;
  },
  async cancel() {
    const call = await Call.open();
    const content = [{ type: "input_text", text: "count from one to six" }];
    call.connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    call.connection.send({ type: "response.create" });
    await call.until("response.output_audio.delta");
    call.connection.send({ type: "response.cancel" });
    const { response } = await call.until("response.done");
    check(response.status === "cancelled", JSON.stringify(response));
    check((await call.say("thank you")).response.status === "completed", "no answer after a cancel");
    call.errors();
    call.close();
  },
  async out_of_band() {
    const call = await Call.open();
    const content = [{ type: "input_text", text: "do you have parking" }];
    const input = [{ type: "message", role: "user", content }];
    const metadata = { topic: "aside" };
    call.connection.send({ type: "response.create", response: { conversation: "none", input, metadata, output_modalities: ["text"] } });
    const { response } = await call.until("response.done");
    check(response.metadata.topic === "aside" && response.output[0].content[0].text, JSON.stringify(response));
    check(!call.log.some((event) => event.type === "conversation.item.added"), "it entered the conversation");
    call.errors();
    call.close();
    return response.output[0].content[0].text;
  },
  async reconnect() {
    for (let i = 0; i < 2; i++) {
      const call = await Call.open();
      check((await call.say("hello")).response.status === "completed", "no answer");
      call.vanish();
    }
  },
};

export async function runWith(open, packages) {
  connect = open;
  await run(scenarios, packages);
}
