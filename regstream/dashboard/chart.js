// Events a second over the last two minutes: the counts, and their bars on a canvas.

export const SECONDS = 120;
const NICE = [1, 2, 5];

// Counts by whole second, of the daemon's clock.
export class Counts {
  constructor() {
    this.slots = new Uint32Array(SECONDS);
    this.newest = 0;
  }

  move(second) {
    const from = Math.max(this.newest, second - SECONDS);
    for (let at = from + 1; at <= second; at += 1) this.slots[at % SECONDS] = 0;
    this.newest = Math.max(this.newest, second);
  }

  add(second, number = 1) {
    if (second > this.newest) this.move(second);
    if (second > this.newest - SECONDS) this.slots[second % SECONDS] += number;
  }

  // The number at `index`, 0 the oldest.
  at(index) {
    return this.slots[(this.newest - SECONDS + 1 + index + SECONDS) % SECONDS];
  }

  get peak() {
    return this.slots.reduce((most, one) => Math.max(most, one), 0);
  }
}

// The top of the scale: it moves in steps, so that bars do not tremble.
export function ceiling(peak) {
  for (let power = 1; ; power *= 10) {
    const found = NICE.find((one) => one * power >= peak);
    if (found) return found * power;
  }
}

export class Chart {
  constructor(canvas, counts) {
    Object.assign(this, { canvas, counts, width: 0, height: 0, visible: true, color: "" });
    this.watch = new ResizeObserver(([entry]) => this.size(entry.contentRect));
    this.watch.observe(canvas);
    this.sight = new IntersectionObserver(([entry]) => { this.visible = entry.isIntersecting; this.draw(); });
    this.sight.observe(canvas);
  }

  size({ width, height }) {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.width = Math.round(width * ratio);
    this.height = this.canvas.height = Math.round(height * ratio);
    this.ratio = ratio;
    this.draw();
  }

  draw() {
    if (!this.visible || !this.width) return;
    const context = this.canvas.getContext("2d");
    const { width, height, counts, ratio } = this;
    const line = Math.max(1, Math.round(ratio));
    const top = ceiling(counts.peak);
    if (!this.color) this.color = getComputedStyle(this.canvas).color;
    context.clearRect(0, 0, width, height);
    context.fillStyle = this.color;
    context.globalAlpha = 0.3;
    context.fillRect(0, height - line, width, line);
    for (let index = 0; index < SECONDS; index += 1) {
      const number = counts.at(index);
      if (!number) continue;
      // Whole pixels: what is equal looks equal
      const left = Math.round((index * width) / SECONDS);
      const wide = Math.round(((index + 1) * width) / SECONDS) - left;
      const tall = Math.max(2 * line, Math.round((number / top) * (height - line)));
      // The second that is under way is not full yet
      const now = index === SECONDS - 1 ? 0.4 : 1;
      context.globalAlpha = 0.3 * now;
      context.fillRect(left, height - tall, wide, tall);
      context.globalAlpha = now;
      context.fillRect(left, height - tall, wide, Math.min(tall, 2 * line));
    }
  }

  // The second under a place on the screen: how long ago, and its number.
  under(x) {
    const { left, width } = this.canvas.getBoundingClientRect();
    const index = Math.min(SECONDS - 1, Math.max(0, Math.floor(((x - left) / width) * SECONDS)));
    return { ago: SECONDS - 1 - index, number: this.counts.at(index) };
  }

  end() {
    this.watch.disconnect();
    this.sight.disconnect();
  }
}
