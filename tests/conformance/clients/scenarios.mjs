// What every JavaScript client is put through; each prints one line of JSON per scenario. The client's own code is
// unmodified: what it needs of the server is what it gets in the field.
import { readFileSync } from "node:fs";

export const TOOL = {
  type: "function",
  name: "get_weather",
  description: "Current weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
export const FRAME = 24000 * 2 * 0.1; // bytes of 100 ms

// PCM of a spoken question, with the silence behind it that ends a turn.
export function spoken(path) {
  return Buffer.concat([readFileSync(path), Buffer.alloc(24000 * 2)]);
}

export function* frames(pcm) {
  for (let at = 0; at < pcm.length; at += FRAME) yield pcm.subarray(at, at + FRAME);
}

// The installed version of each package, as package.json says (which not every package exports).
function versions(packages) {
  const at = (name) => new URL(`node_modules/${name}/package.json`, import.meta.url);
  return Object.fromEntries(packages.map((name) => [name, JSON.parse(readFileSync(at(name))).version]));
}

// Runs the scenarios one after the other; the first line has the versions.
export async function run(scenarios, packages) {
  console.log(JSON.stringify({ versions: versions(packages) }));
  const wanted = process.argv.slice(5);
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (wanted.length && !wanted.includes(name)) continue;
    const began = Date.now();
    let line = { scenario: name, ok: true };
    try {
      line.detail = await within(60_000, scenario());
    } catch (error) {
      line = { scenario: name, ok: false, detail: String(error?.stack ?? error).slice(0, 600) };
    }
    console.log(JSON.stringify({ ...line, ms: Date.now() - began }));
  }
  process.exit(0);
}

export function within(ms, promise) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`nothing within ${ms} ms`)), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function check(condition, words) {
  if (!condition) throw new Error(words);
}
