// The openai package for JavaScript over the WebSocket of browsers, which Node has too:
// node --experimental-websocket openai_web_js.mjs https://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";
import { runWith } from "./openai_calls.mjs";

await runWith((client) => {
  const connection = new OpenAIRealtimeWebSocket({ model: "pocket" }, client);
  return { connection, vanish: () => connection.close() };
}, ["openai"]);
