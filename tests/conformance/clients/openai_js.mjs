// The openai package for JavaScript over `ws`: node openai_js.mjs https://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { runWith } from "./openai_calls.mjs";

await runWith((client) => {
  const connection = new OpenAIRealtimeWS({ model: "pocket" }, client);
  return { connection, vanish: () => connection.socket.terminate() };
}, ["openai", "ws"]);
