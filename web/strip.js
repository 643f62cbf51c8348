// The picture of both voices over the last seconds: the person above the line, the agent below it.

const COLUMN_MS = 50;
const COLUMN_PX = 5;
const BAR_PX = 3;
const MARKS = { pending: "--warn", confirmed: "--bad", dismissed: "--agent", turn: "--user" };

/** Loudness as a height: -54 dB and below is 0, -8 dB and above is 1. */
export function height(level) {
  return level <= 0 ? 0 : Math.min(1, Math.max(0, (20 * Math.log10(level) + 54) / 46));
}

export class Strip {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.columns = []; // newest last: both heights, and what was decided then
    this.decided = "";
    this.since = 0;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Something was decided at this moment: "pending", "confirmed", "dismissed" or "turn". */
  mark(kind) {
    this.decided = kind;
  }

  /** Takes the levels of this moment (0..1, root mean square); draws when a column is full. */
  tick(now, user, agent) {
    if (now - this.since < COLUMN_MS) return;
    this.since = now;
    this.columns.push([height(user), height(agent), this.decided]);
    this.decided = "";
    this.columns.splice(0, this.columns.length - 400);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: tall } = canvas;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(tall * ratio);
    const pen = canvas.getContext("2d");
    const colour = getComputedStyle(canvas);
    const middle = tall / 2;
    pen.scale(ratio, ratio);
    for (let n = 0; n * COLUMN_PX < width; n++) {
      const [user, agent, decided] = this.columns[this.columns.length - 1 - n] ?? [0, 0, ""];
      const x = width - (n + 1) * COLUMN_PX;
      pen.globalAlpha = Math.min(1, Math.max(0.08, (x / width) * 1.6));
      bar(pen, { x, y: middle - 1.5, size: -user * (middle - 4), colour: colour.getPropertyValue("--user") });
      bar(pen, { x, y: middle + 1.5, size: agent * (middle - 4), colour: colour.getPropertyValue("--agent") });
      const mark = MARKS[decided];
      if (mark) bar(pen, { x: x + 1, y: 2, size: tall - 4, colour: colour.getPropertyValue(mark), wide: 1.5 });
      else if (user + agent === 0) bar(pen, { x, y: middle - 1, size: 2, colour: colour.getPropertyValue("--line") });
    }
  }
}

function bar(pen, { x, y, size, colour, wide = BAR_PX }) {
  if (size === 0) return;
  pen.fillStyle = colour;
  pen.beginPath();
  pen.roundRect(x, Math.min(y, y + size), wide, Math.abs(size), 1.5);
  pen.fill();
}
