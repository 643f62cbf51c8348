// The openai package for JavaScript with intent=transcription:
// node stt_openai_js.mjs https://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { check, frames, run, spoken } from "./scenarios.mjs";

const [baseURL, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none" });
const NAME = "conversation.item.input_audio_transcription";

// A configured session; `until` gives the next event of a type, and fails on an error.
async function listening(heard) {
  const connection = new OpenAIRealtimeWS({ intent: "transcription" }, client);
  const log = [];
  let look = () => {};
  connection.on("event", (event) => (log.push(event), look()));
  connection.on("error", (error) => (log.push({ type: "error", error: error.error ?? String(error) }), look()));
  const until = (type) =>
    new Promise((done, fail) => {
      look = () => {
        const wrong = log.find((event) => event.type === "error");
        const seen = log.find((event) => event.type === type);
        if (wrong) fail(new Error(JSON.stringify(wrong)));
        else if (seen) done(seen);
      };
      look();
    });
  const created = await until("session.created");
  check(created.session.type === "transcription", JSON.stringify(created));
  connection.send({ type: "session.update", session: { type: "transcription", audio: { input: heard } } });
  await until("session.updated");
  return { connection, log, until };
}

function speak({ connection }) {
  for (const frame of frames(spoken(question)))
    connection.send({ type: "input_audio_buffer.append", audio: frame.toString("base64") });
}

// The transcript, which came word by word before.
async function written({ connection, log, until }) {
  const { transcript } = await until(`${NAME}.completed`);
  const parts = log.filter((event) => event.type === `${NAME}.delta`).map((event) => event.delta);
  check(parts.length > 1 && parts.join("") === transcript, JSON.stringify(parts));
  check(transcript.toLowerCase().includes("wednesday"), transcript);
  connection.close();
  return transcript;
}

const scenarios = {
  async connect() {
    (await listening({})).connection.close();
  },
  async spoken() {
    const call = await listening({ turn_detection: { type: "server_vad" } });
    speak(call);
    return written(call);
  },
  async commit() {
    const call = await listening({ turn_detection: null });
    speak(call);
    call.connection.send({ type: "input_audio_buffer.commit" });
    return written(call);
  },
};

await run(scenarios, ["openai", "ws"]);
