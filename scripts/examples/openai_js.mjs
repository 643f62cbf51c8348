// The unmodified openai package for JavaScript (npm install openai ws): node scripts/examples/openai_js.mjs [--url URL] [--key KEY]
// Its Realtime client takes wss:// only: give the server server.tls_cert and server.tls_key, and this an https:// URL
// (NODE_EXTRA_CA_CERTS=cert.pem for a certificate of your own). With http:// it asks by REST.
import { parseArgs } from "node:util";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const { values: given } = parseArgs({
  options: {
    url: { type: "string", default: "http://127.0.0.1:8080" },
    key: { type: "string", default: "none" },
    question: { type: "string", default: "do you have parking" },
  },
});
const client = new OpenAI({ baseURL: `${given.url}/v1`, apiKey: given.key });

async function overRest() {
  const stream = await client.chat.completions.create({
    model: "pocket",
    stream: true,
    messages: [{ role: "user", content: given.question }],
  });
  process.stdout.write("agent: ");
  for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
  process.stdout.write("\n");
}

function overTheSocket() {
  const call = new OpenAIRealtimeWS({ model: "pocket" }, client);
  let bytes = 0;
  return new Promise((done, fail) => {
    call.on("error", fail);
    call.on("session.created", () => {
      const content = [{ type: "input_text", text: given.question }];
      call.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
      call.send({ type: "response.create" });
    });
    call.on("response.output_audio.delta", (event) => (bytes += Buffer.from(event.delta, "base64").length));
    call.on("response.output_audio_transcript.done", (event) => console.log(`agent: ${event.transcript}`));
    call.on("response.done", () => {
      console.log(`${(bytes / 48000).toFixed(1)} s of speech`);
      call.close();
      done();
    });
  });
}

console.log(`you:   ${given.question}`);
await (given.url.startsWith("https:") ? overTheSocket() : overRest());
