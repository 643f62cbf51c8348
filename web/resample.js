// Streaming sample-rate conversion; knows arrays of samples and nothing of audio devices.

const ZERO_CROSSINGS = 16; // on each side, at the lower of the two rates
const KAISER_BETA = 8.5; // about 85 dB of stop band
const ROLL_OFF = 0.93; // cut-off as a share of the lower rate's half

/**
 * Converts a stream of mono samples from one rate to another, piece by piece, without clicks at the joins.
 *
 * Output sample n lies at input position n * from / to exactly: rates are integers, so one table of filter phases
 * serves for ever and nothing drifts. The filter is a Kaiser-windowed sinc.
 */
export class Resampler {
  /**
   * @param {number} from rate of the input in Hz, an integer
   * @param {number} to rate of the output in Hz, an integer
   */
  constructor(from, to) {
    const common = gcd(from, to);
    this.step = from / common;
    this.phases = to / common;
    this.same = from === to;
    const scale = Math.min(1, to / from);
    this.half = Math.ceil(ZERO_CROSSINGS / scale);
    this.table = phaseTable(this.phases, this.half, scale * ROLL_OFF);
    this.reset();
  }

  /** Forgets the stream; the next push begins a new one. */
  reset() {
    this.kept = new Float32Array(this.half - 1); // silence before the first sample
    this.index = 0; // in kept: where the window of the next output begins
    this.phase = 0;
  }

  /**
   * @param {Float32Array} samples the next piece of the input, of any length
   * @returns {Float32Array} all output that is certain by now
   */
  push(samples) {
    if (this.same) return samples;
    const input = new Float32Array(this.kept.length + samples.length);
    input.set(this.kept);
    input.set(samples, this.kept.length);
    const taps = 2 * this.half;
    const room = input.length - taps - this.index;
    const count = room < 0 ? 0 : Math.floor(((room + 1) * this.phases - 1 - this.phase) / this.step) + 1;
    const output = new Float32Array(count);
    let { index, phase } = this;
    for (let n = 0; n < count; n++) {
      const row = phase * taps;
      let sum = 0;
      for (let k = 0; k < taps; k++) sum += this.table[row + k] * input[index + k];
      output[n] = sum;
      phase += this.step;
      index += Math.floor(phase / this.phases);
      phase %= this.phases;
    }
    const used = Math.min(index, input.length);
    this.kept = input.slice(used);
    this.index = index - used;
    this.phase = phase;
    return output;
  }

  /** @returns {Float32Array} the rest of a stream that has ended; the next push begins a new one. */
  finish() {
    const rest = this.same ? new Float32Array(0) : this.push(new Float32Array(this.half));
    this.reset();
    return rest;
  }
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

/** One row of 2 * half taps per phase; each row sums to 1, so that a constant stays that constant. */
function phaseTable(phases, half, cutoff) {
  const taps = 2 * half;
  const table = new Float32Array(phases * taps);
  for (let p = 0; p < phases; p++) {
    const row = table.subarray(p * taps, (p + 1) * taps);
    let sum = 0;
    for (let k = 0; k < taps; k++) {
      const x = k - (half - 1) - p / phases;
      row[k] = sinc(cutoff * x) * kaiser(x / half);
      sum += row[k];
    }
    for (let k = 0; k < taps; k++) row[k] /= sum;
  }
  return table;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function kaiser(x) {
  return Math.abs(x) > 1 ? 0 : bessel(KAISER_BETA * Math.sqrt(1 - x * x)) / bessel(KAISER_BETA);
}

/** Modified Bessel function of the first kind, order 0, by its power series. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-12; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
