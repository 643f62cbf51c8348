// The loudspeaker's end on the audio thread: plays the queue, and tells what was heard and how loud it is.

import { Playout } from "./playout.js";

const REPORT_S = 0.04;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.playout = new Playout(sampleRate);
    this.energy = 0;
    this.peak = 0;
    this.counted = 0;
    this.silent = false; // a pause was told of
    this.port.onmessage = ({ data }) => this.obey(data);
  }

  obey(message) {
    if (message.type === "push") this.playout.push(message.id, message.samples);
    else if (message.type === "end") this.playout.end(message.id);
    else if (message.type === "pause") this.playout.pause();
    else if (message.type === "resume") this.playout.resume();
    else if (message.type === "flush") this.flush();
  }

  flush() {
    const { silent } = this.playout;
    this.port.postMessage({ type: "flushed", silent, cut: this.playout.flush() });
  }

  process(_, [channels]) {
    const block = channels[0];
    for (const { offset, ...event } of this.playout.fill(block)) {
      this.port.postMessage({ ...event, time: currentTime + offset / sampleRate });
    }
    this.tellOfPause();
    for (const channel of channels.slice(1)) channel.set(block);
    this.measure(block);
    return true;
  }

  tellOfPause() {
    const { silent, place } = this.playout;
    if (silent && !this.silent) this.port.postMessage({ type: "silent", place });
    this.silent = silent;
  }

  measure(block) {
    for (const sample of block) {
      this.energy += sample * sample;
      this.peak = Math.max(this.peak, Math.abs(sample));
    }
    this.counted += block.length;
    if (this.counted < REPORT_S * sampleRate) return;
    const { played, underruns, running, silent, place } = this.playout;
    const level = Math.sqrt(this.energy / this.counted);
    this.port.postMessage({ type: "report", level, peak: this.peak, played, underruns, running, silent, place });
    this.energy = 0;
    this.counted = 0;
  }
}

registerProcessor("player", Player);
