// The queue between what has arrived and what is heard; knows items and samples, nothing of worklets or sockets.

const PREBUFFER_S = 0.06; // before an item starts, and again after it ran dry
const FADE_S = 0.005; // a cut ends in this fade instead of a click; a pause begins, and ends, with one

/**
 * Plays items one after the other without a gap and counts, per item, the samples that were handed out.
 *
 * All samples are mono at the device's rate.
 */
export class Playout {
  /** @param {number} rate samples per second */
  constructor(rate) {
    this.prebuffer = Math.round(PREBUFFER_S * rate);
    this.fade = Math.round(FADE_S * rate);
    this.items = [];
    this.tail = new Float32Array(0);
    this.running = false;
    this.paused = false;
    this.loudness = this.fade; // in steps of the fade; less of them around a pause
    this.played = 0; // of all items together
    this.underruns = 0;
  }

  /** Queues samples of an item; an item that is not queued yet goes to the end. */
  push(id, samples) {
    const item = this.find(id) ?? this.add(id);
    if (samples.length > 0) item.chunks.push(samples);
    item.queued += samples.length;
  }

  /** No more samples of this item will come. */
  end(id) {
    const item = this.find(id);
    if (item) item.ended = true;
  }

  /** Falls silent within a fade and keeps the rest. The samples of the fade count as heard: none of them comes again. */
  pause() {
    this.paused = true;
    if (!this.running) this.loudness = 0;
  }

  /** Goes on behind the last sample that was handed out. */
  resume() {
    this.paused = false;
    if (!this.running) this.loudness = this.fade;
  }

  /** Whether a pause has come to its silence. */
  get silent() {
    return this.paused && this.loudness === 0;
  }

  /** Where it stands: the item that is played, or is to be played next, and its samples so far; null without one. */
  get place() {
    const [item] = this.items;
    return item ? { id: item.id, played: item.played } : null;
  }

  /**
   * Drops everything that was not heard yet; what sounds right now fades out. A pause is over then.
   *
   * @returns {{id: string, played: number, dropped: number}[]} how far each queued item was heard, in samples
   */
  flush() {
    if (this.running && !this.silent && this.items.length > 0) this.tail = this.fadeOut(this.items[0]);
    const cut = this.items.map(({ id, played, queued }) => ({ id, played, dropped: queued }));
    this.items = [];
    this.running = false;
    this.resume();
    return cut;
  }

  /**
   * Fills a block with the next samples, silence where there are none.
   *
   * @param {Float32Array} block
   * @returns {{type: "start"|"end", id: string, offset: number}[]} items that began or ended inside the block
   */
  fill(block) {
    const events = [];
    const from = this.fillTail(block);
    const until = this.paused ? Math.min(block.length, from + this.loudness) : block.length;
    let filled = from;
    while (filled < until && this.items.length > 0) {
      const item = this.items[0];
      if (!this.running && !item.ended && item.queued < this.prebuffer) break;
      this.running = item.queued > 0;
      if (!this.running) {
        if (!item.ended) {
          this.underruns += 1;
          break;
        }
        this.items.shift();
        events.push({ type: "end", id: item.id, played: item.played, offset: filled });
        continue;
      }
      if (item.played === 0) events.push({ type: "start", id: item.id, offset: filled });
      filled += this.take(item, block, filled, until);
    }
    this.soften(block, from, filled);
    if (!this.running) this.loudness = this.paused ? 0 : this.fade;
    block.fill(0, filled);
    return events;
  }

  find(id) {
    return this.items.find((item) => item.id === id);
  }

  add(id) {
    const item = { id, chunks: [], offset: 0, queued: 0, played: 0, ended: false };
    this.items.push(item);
    return item;
  }

  /** Moves samples of one chunk into the block, up to `until`; returns how many. */
  take(item, block, at, until = block.length) {
    const chunk = item.chunks[0];
    const count = Math.min(chunk.length - item.offset, until - at);
    block.set(chunk.subarray(item.offset, item.offset + count), at);
    item.offset += count;
    if (item.offset === chunk.length) {
      item.chunks.shift();
      item.offset = 0;
    }
    item.queued -= count;
    item.played += count;
    this.played += count;
    return count;
  }

  fadeOut(item) {
    const tail = new Float32Array(Math.min(this.fade, item.queued));
    const { played } = item;
    for (let at = 0; at < tail.length; ) at += this.take(item, tail, at);
    this.played -= item.played - played; // the fade is not counted as heard
    item.queued += item.played - played;
    item.played = played;
    for (let n = 0; n < tail.length; n++) tail[n] *= 1 - (n + 1) / tail.length;
    return tail;
  }

  /** Fades what was filled in between towards the silence of a pause, or out of it. */
  soften(block, from, to) {
    const step = this.paused ? -1 : 1;
    for (let n = from; n < to; n++) {
      if (!this.paused && this.loudness === this.fade) return;
      this.loudness += step;
      block[n] *= this.loudness / this.fade;
    }
  }

  fillTail(block) {
    const count = Math.min(this.tail.length, block.length);
    block.set(this.tail.subarray(0, count));
    this.tail = this.tail.subarray(count);
    return count;
  }
}
