// The microphone's end on the audio thread: mixes to mono, converts to 24 kHz, cuts 40 ms frames of 16-bit PCM.

import { Resampler } from "./resample.js";

const RATE = 24000;
const FRAME = 960; // 40 ms

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(Math.round(sampleRate), RATE);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.energy = 0;
  }

  process([channels]) {
    const samples = this.resampler.push(mono(channels));
    for (const sample of samples) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.energy += clipped * clipped;
      this.frame[this.filled++] = Math.round(clipped * 32767);
      if (this.filled === FRAME) this.ship();
    }
    return true;
  }

  ship() {
    const level = Math.sqrt(this.energy / FRAME);
    this.port.postMessage({ pcm: this.frame.buffer, level }, [this.frame.buffer]);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.energy = 0;
  }
}

/** The mean of the channels; silence while nothing is connected, so that the clock goes on. */
function mono(channels) {
  if (channels.length === 0) return new Float32Array(128);
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, n) => channels.reduce((sum, channel) => sum + channel[n], 0) / channels.length);
}

registerProcessor("capture", Capture);
