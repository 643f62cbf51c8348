// The devices: microphone in, loudspeaker out. Knows samples, item ids and clocks, nothing of the protocol.

import { Resampler } from "./resample.js";

export const RATE = 24000; // of the protocol
const MAX_LATENCY_S = 0.5; // devices sometimes report nonsense
const TELL_MS = 75; // between two reports of where it stands: of one in 40 ms every second one

/** A reason why the microphone cannot be used, in words for the person at the page. */
export class MicrophoneError extends Error {}

/** Opens the audio context and loads both worklets; must be called from a click or a key press. */
export async function openAudio() {
  const context = new AudioContext({ latencyHint: "interactive" });
  await Promise.all([
    context.audioWorklet.addModule("/web/capture-worklet.js"),
    context.audioWorklet.addModule("/web/player-worklet.js"),
  ]);
  return context;
}

/** The microphone as 40 ms frames of 24 kHz PCM. Muted, it goes on in silence, so that the server's clock goes on. */
export class Microphone {
  /**
   * @param {AudioContext} context
   * @param {{onFrame: (pcm: ArrayBuffer, level: number) => void, onLost: () => void}} handlers
   */
  constructor(context, { onFrame, onLost }) {
    this.context = context;
    this.onFrame = onFrame;
    this.onLost = onLost;
    this.muted = false;
    this.stream = null;
    this.nodes = [];
  }

  /** @throws {MicrophoneError} it is not there, not allowed or in use */
  async open() {
    this.stream = await askForMicrophone();
    const [track] = this.stream.getAudioTracks();
    track.enabled = !this.muted;
    track.onended = () => {
      this.close();
      this.onLost();
    };
    const source = this.context.createMediaStreamSource(this.stream);
    const capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => this.onFrame(data.pcm, data.level);
    source.connect(capture);
    this.nodes = [source, capture];
  }

  mute(muted) {
    this.muted = muted;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  close() {
    for (const node of this.nodes) {
      node.disconnect();
      if (node.port) node.port.onmessage = null;
    }
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.nodes = [];
    this.stream = null;
  }
}

async function askForMicrophone() {
  if (!navigator.mediaDevices) {
    throw new MicrophoneError("Browsers lend the microphone only to pages on https:// or on localhost.");
  }
  const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new MicrophoneError(MICROPHONE_ERRORS[error.name] ?? `The microphone cannot be used: ${error.message}.`);
  }
}

const MICROPHONE_ERRORS = {
  NotAllowedError: "The microphone is blocked. Allow it in the address bar of the browser, then press Talk again.",
  NotFoundError: "No microphone was found. Plug one in, then press Talk again.",
  NotReadableError: "The microphone is in use by another program. Close that, then press Talk again.",
};

/** The loudspeaker: items queue up and play without gaps; says when each starts and how far it was heard. */
export class Speaker {
  /**
   * @param {AudioContext} context
   * @param {{onStart: (id: string, at: number) => void, onEnd: (id: string) => void,
   *   onPlace: (id: string, ms: number) => void}} handlers `at` is when the first sample is heard, on the clock of
   *   performance.now(); `onPlace` is told how much of an item was heard, ten times a second while it is
   */
  constructor(context, { onStart, onEnd, onPlace }) {
    this.context = context;
    this.onStart = onStart;
    this.onEnd = onEnd;
    this.onPlace = onPlace;
    this.paused = false;
    this.toldAt = 0;
    this.resamplers = new Map(); // one per item that still receives audio
    this.queued = new Set(); // items not played to their end
    this.flushes = [];
    this.report = { level: 0, peak: 0, played: 0, underruns: 0, running: false, silent: false };
    this.node = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.hear(data);
    this.gain = new GainNode(context);
    this.node.connect(this.gain).connect(context.destination);
  }

  /** @param {number} part of the full loudness, 0 to 1 */
  set volume(part) {
    this.gain.gain.value = part * part; // loudness as the ear counts it
  }

  /** Whether something is being played or waits to be. */
  get busy() {
    return this.queued.size > 0;
  }

  /** Samples heard so far, at 24 kHz. */
  get played() {
    return Math.round((this.report.played * RATE) / this.context.sampleRate);
  }

  /** @param {string} id @param {Int16Array} pcm 24 kHz */
  push(id, pcm) {
    if (!this.resamplers.has(id)) this.resamplers.set(id, new Resampler(RATE, Math.round(this.context.sampleRate)));
    const samples = Float32Array.from(pcm, (value) => value / 32768);
    if (!this.queued.has(id)) this.onPlace(id, 0); // from now on it says where it stands
    this.queued.add(id);
    this.post(id, this.resamplers.get(id).push(samples));
  }

  /** All of this item's audio has come. */
  end(id) {
    const resampler = this.resamplers.get(id);
    if (!resampler) return;
    this.resamplers.delete(id);
    this.post(id, resampler.finish());
    this.node.port.postMessage({ type: "end", id });
  }

  /** Silence within milliseconds; what was not played yet is kept. */
  pause() {
    this.paused = true;
    this.node.port.postMessage({ type: "pause" });
  }

  /** Goes on at the sample behind the last one. */
  resume() {
    this.paused = false;
    this.node.port.postMessage({ type: "resume" });
  }

  /** Silence at once. @returns {Promise<{id: string, ms: number}[]>} how far each item that was cut was heard */
  async flush() {
    this.resamplers.clear();
    this.queued.clear();
    this.paused = false;
    const { promise, resolve } = withResolvers();
    this.flushes.push(resolve);
    this.node.port.postMessage({ type: "flush" });
    return promise;
  }

  post(id, samples) {
    const own = samples.slice(); // a transferred buffer is gone from here
    this.node.port.postMessage({ type: "push", id, samples: own }, [own.buffer]);
  }

  hear(message) {
    const { currentTime } = this.context;
    if (message.type === "report") {
      this.report = message;
      const plays = message.running && !message.silent;
      if (plays && performance.now() - this.toldAt >= TELL_MS) this.tell(message.place);
    } else if (message.type === "silent") {
      this.stand(message.place);
    } else if (message.type === "start") {
      this.onStart(message.id, performance.now() + (message.time - currentTime + this.latency) * 1000);
    } else if (message.type === "end") {
      this.queued.delete(message.id);
      this.stand(message);
      this.onEnd(message.id);
    } else {
      const latency = message.silent ? 0 : this.latency; // a pause is longer than the way to the ear
      this.flushes.shift()(message.cut.map(({ id, played }) => ({ id, ms: this.heardMs(played, latency) })));
    }
  }

  /** Nothing more comes behind this: all of it will have been heard in a moment. */
  stand(place) {
    if (!place) return;
    this.tell(place);
    setTimeout(() => this.onPlace(place.id, this.heardMs(place.played, 0)), this.latency * 1000);
  }

  tell(place) {
    if (!place) return;
    this.toldAt = performance.now();
    this.onPlace(place.id, this.heardMs(place.played, this.latency));
  }

  heardMs(played, latency) {
    return Math.max(0, Math.round((played / this.context.sampleRate - latency) * 1000));
  }

  /** Seconds from the worklet to the ear. */
  get latency() {
    const seconds = this.context.outputLatency || this.context.baseLatency || 0;
    return Math.min(seconds, MAX_LATENCY_S);
  }
}

function withResolvers() {
  let resolve;
  const promise = new Promise((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** @param {ArrayBuffer} buffer @returns {string} base64 */
export function toBase64(buffer) {
  return btoa(String.fromCharCode(...new Uint8Array(buffer)));
}

/** @param {string} text base64 of 16-bit PCM @returns {Int16Array} */
export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}
