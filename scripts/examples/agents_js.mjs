// The unmodified @openai/agents-realtime (npm install @openai/agents-realtime): an agent with a function.
// node scripts/examples/agents_js.mjs [--url URL] [--key KEY]
import { parseArgs } from "node:util";
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";

const { values: given } = parseArgs({
  options: {
    url: { type: "string", default: "http://127.0.0.1:8080" },
    key: { type: "string", default: "none" },
    question: { type: "string", default: "what is the weather in milan" },
  },
});

const getWeather = tool({
  name: "get_weather",
  description: "Current weather in a city",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
  strict: false,
  execute: async ({ city }) => {
    console.log(`       ... looking up the weather in ${city}`);
    return { weather: "sunny", temperature: 20 };
  },
});
const agent = new RealtimeAgent({
  name: "desk",
  instructions: "You are the voice assistant of harbor house.",
  tools: [getWeather],
});
const transport = new OpenAIRealtimeWebSocket({ useInsecureApiKey: true });
const session = new RealtimeSession(agent, { transport, model: "pocket" });

let seconds = 0;
session.on("audio", (event) => (seconds += event.data.byteLength / 48000));
session.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
const answered = new Promise((done) => {
  transport.on("*", (event) => {
    if (event.type === "response.output_audio_transcript.done") console.log(`agent: ${event.transcript}`);
    const asks = event.response?.output?.some((item) => item.type === "function_call");
    if (event.type === "response.done" && !asks) done();
  });
});

const url = given.url.replace(/^http/, "ws");
await session.connect({ apiKey: given.key, url: `${url}/v1/realtime?model=pocket` });
console.log(`you:   ${given.question}`);
session.sendMessage(given.question);
await answered;
console.log(`${seconds.toFixed(1)} s of speech`);
session.close();
process.exit(0);
