// The tools that the page answers itself, to show that the agent can use tools. Pure apart from the browser's clock.

const CITY = { type: "string", description: "name of the city" };

/** What the server is told about them. */
export const TOOLS = [
  {
    type: "function",
    name: "get_time",
    description: "Get the local time",
    parameters: { type: "object", properties: { city: CITY } },
  },
  {
    type: "function",
    name: "get_weather",
    description: "Get the weather in a city",
    parameters: { type: "object", properties: { city: CITY }, required: ["city"] },
  },
];

// Time zones are named after one city each; these share the zone of another.
const SAME_ZONE = {
  barcelona: "Europe/Madrid",
  beijing: "Asia/Shanghai",
  boston: "America/New_York",
  dallas: "America/Chicago",
  delhi: "Asia/Kolkata",
  edinburgh: "Europe/London",
  geneva: "Europe/Zurich",
  hamburg: "Europe/Berlin",
  manchester: "Europe/London",
  miami: "America/New_York",
  milan: "Europe/Rome",
  montreal: "America/Toronto",
  mumbai: "Asia/Kolkata",
  munich: "Europe/Berlin",
  "san francisco": "America/Los_Angeles",
  seattle: "America/Los_Angeles",
  venice: "Europe/Rome",
  washington: "America/New_York",
};

const SKIES = ["sunny", "cloudy", "rainy", "windy", "clear"];

/**
 * Answers one call.
 *
 * @param {string} name
 * @param {string} json the arguments as the model wrote them
 * @param {Date} now
 * @returns {{output: object, note: string}} the result for the model, and what the page says about it
 */
export function answer(name, json, now = new Date()) {
  let given;
  try {
    given = JSON.parse(json || "{}") ?? {};
  } catch {
    return { output: { error: "the arguments are not valid JSON" }, note: "the call was not readable" };
  }
  const city = typeof given.city === "string" ? given.city.trim() : "";
  if (name === "get_time") return time(city, now);
  if (name === "get_weather") return weather(city);
  return { output: { error: `there is no tool named ${name}` }, note: "no such tool on this page" };
}

function time(city, now) {
  const zone = city === "" ? undefined : zoneOf(city);
  if (zone === null) return { output: { city, error: "unknown city" }, note: `no time zone known for ${city}` };
  const format = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone };
  const clock = new Intl.DateTimeFormat("en-GB", format).format(now);
  const where = city === "" ? "" : ` in ${city}`;
  return { output: city === "" ? { time: clock } : { city, time: clock }, note: `${clock}${where}, by this device's clock` };
}

/** The IANA time zone of a city, null if none is known. */
function zoneOf(city) {
  const name = city.toLowerCase();
  const last = `/${name.replaceAll(" ", "_")}`;
  const named = Intl.supportedValuesOf("timeZone").find((zone) => zone.toLowerCase().endsWith(last));
  return SAME_ZONE[name] ?? named ?? null;
}

/** Weather made up from the letters of the city, so that it is the same each time. */
function weather(city) {
  if (city === "") return { output: { error: "the city is missing" }, note: "no city was named" };
  let seed = 7;
  for (const letter of city.toLowerCase()) seed = (seed * 31 + letter.codePointAt(0)) % 9973;
  const sky = SKIES[seed % SKIES.length];
  const temperature = 8 + (seed % 19);
  return { output: { city, weather: sky, temperature }, note: `${sky}, ${temperature} °C in ${city} (made-up weather)` };
}
