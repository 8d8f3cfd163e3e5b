/* Layers: turn an answer of the server into something that is drawn with one call per frame. */

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) bytes[at] = raw.charCodeAt(at);
  return bytes.buffer;
}

const asInts = (text) => new Int32Array(bytesOf(text));
const asFloats = (text) => new Float32Array(bytesOf(text));
const asBytes = (text) => new Uint8Array(bytesOf(text));

/** The layer that an answer describes. */
export function layerOf(answer) {
  if (answer.kind === 'outline') return new OutlineLayer(answer);
  return answer.kind === 'grid' ? new GridLayer(answer) : new CellLayer(answer);
}

class OutlineLayer {
  constructor(answer) {
    this.answer = answer;
    this.path = new Path2D();
    for (const ring of answer.rings) {
      ring.forEach((value, at) => {
        if (at % 2) return;
        if (at) this.path.lineTo(value, ring[at + 1]);
        else this.path.moveTo(value, ring[1]);
      });
      this.path.closePath();
    }
  }

  draw(context, view, opacity) {
    context.save();
    context.globalAlpha = opacity;
    context.transform(view.scale, 0, 0, view.scale, view.x, view.y);
    context.lineJoin = 'round';
    for (const [width, colour] of [[4, '#ffffff'], [2, '#1f9e89']]) {
      context.lineWidth = width / view.scale;
      context.strokeStyle = colour;
      context.stroke(this.path);
    }
    context.restore();
  }
}

/* Patches as cells of a raster: one pixel each, scaled when drawn. */
class Cells {
  constructor(answer) {
    this.n = answer.n;
    this.side = answer.side;
    this.stride = answer.stride || answer.side;
    this.coords = asInts(answer.coords);
    this.left = Infinity;
    this.top = Infinity;
    let right = -Infinity;
    let bottom = -Infinity;
    for (let k = 0; k < this.n; k += 1) {
      this.left = Math.min(this.left, this.coords[2 * k]);
      this.top = Math.min(this.top, this.coords[2 * k + 1]);
      right = Math.max(right, this.coords[2 * k]);
      bottom = Math.max(bottom, this.coords[2 * k + 1]);
    }
    this.columns = this.n ? Math.round((right - this.left) / this.stride) + 1 : 0;
    this.rows = this.n ? Math.round((bottom - this.top) / this.stride) + 1 : 0;
    this.shift = (this.side - this.stride) / 2;
    this.at = new Map();
    for (let k = 0; k < this.n; k += 1) this.at.set(this.cell(k), k);
  }

  cell(k) {
    const column = Math.round((this.coords[2 * k] - this.left) / this.stride);
    return Math.round((this.coords[2 * k + 1] - this.top) / this.stride) * this.columns + column;
  }

  /** Number of the patch at a level-0 point, or -1. */
  under(x, y) {
    const column = Math.floor((x - this.left - this.shift) / this.stride);
    const row = Math.floor((y - this.top - this.shift) / this.stride);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return -1;
    return this.at.get(row * this.columns + column) ?? -1;
  }

  patch(k) {
    return { row: k, x: this.coords[2 * k], y: this.coords[2 * k + 1], side: this.side };
  }
}

class GridLayer extends Cells {
  constructor(answer) {
    super(answer);
    this.answer = answer;
  }

  draw(context, view, opacity) {
    const step = this.stride * view.scale;
    const size = this.side * view.scale;
    context.save();
    context.globalAlpha = opacity;
    context.strokeStyle = context.fillStyle = '#4f46b8';
    context.lineWidth = 1;
    for (let k = 0; k < this.n; k += 1) {
      const x = view.x + this.coords[2 * k] * view.scale;
      const y = view.y + this.coords[2 * k + 1] * view.scale;
      if (x + size < 0 || y + size < 0 || x > view.width || y > view.height) continue;
      if (step > 7) context.strokeRect(Math.round(x) + 0.5, Math.round(y) + 0.5, Math.round(size), Math.round(size));
      else context.fillRect(x, y, Math.max(0.8, step - 0.6), Math.max(0.8, step - 0.6));
    }
    context.restore();
  }
}

class CellLayer extends Cells {
  constructor(answer) {
    super(answer);
    this.answer = answer;
    this.values = asFloats(answer.values);
    this.percentiles = answer.percentiles ? asFloats(answer.percentiles) : null;
    this.best = answer.best ? asBytes(answer.best) : null;
    this.picture = this.raster();
  }

  raster() {
    const canvas = document.createElement('canvas');
    canvas.width = Math.max(1, this.columns);
    canvas.height = Math.max(1, this.rows);
    const context = canvas.getContext('2d');
    const image = context.createImageData(canvas.width, canvas.height);
    const place = this.answer.place ? asBytes(this.answer.place) : null;
    const colours = this.answer.colours ? asBytes(this.answer.colours) : null;
    const ofClass = (this.answer.classes || []).map((entry) => [1, 3, 5].map((at) => parseInt(entry.colour.slice(at, at + 2), 16)));
    for (let k = 0; k < this.n; k += 1) {
      const rgb = place ? colours.subarray(3 * place[k], 3 * place[k] + 3) : ofClass[this.best[k]];
      const alpha = place && this.answer.signed ? Math.sqrt(Math.abs(place[k] / 127.5 - 1)) : 1;
      image.data.set([...rgb, Math.round(255 * alpha)], 4 * this.cell(k));
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  draw(context, view, opacity) {
    if (!this.n) return;
    context.save();
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = false;
    const x = view.x + (this.left + this.shift) * view.scale;
    const y = view.y + (this.top + this.shift) * view.scale;
    context.drawImage(this.picture, x, y, this.columns * this.stride * view.scale, this.rows * this.stride * view.scale);
    context.restore();
  }

  /** The value of a patch as text. */
  said(k) {
    const value = this.values[k];
    const kind = this.best && this.answer.classes[this.best[k]];
    if (kind?.unit) return kind.name + (k >= this.answer.kept ? ', left out' : Number.isNaN(value) ? '' : `, ${value.toPrecision(2)} ${kind.unit}`);
    if (this.best) return `${this.answer.classes[this.best[k]].name} ${value.toFixed(2)}`;
    if (this.answer.percent) return `${(100 * value).toFixed(0)} % ${this.answer.unit}`;
    if (this.answer.even) return `${(value / this.answer.even).toPrecision(3)} × mean, percentile ${this.percentiles[k].toFixed(0)}`;
    return `${this.answer.signed && value >= 0 ? '+' : ''}${value.toPrecision(3)} ${this.answer.unit}`;
  }

  /** Numbers of the patches with the highest (or lowest) values. */
  extremes(count, lowest = false) {
    const order = Array.from({ length: this.n }, (_, k) => k);
    order.sort((one, other) => (lowest ? 1 : -1) * (this.values[one] - this.values[other]));
    return order.slice(0, count);
  }
}

/** The colours of a layer as an image for its legend. */
export function rampOf(answer) {
  const colours = asBytes(answer.colours);
  const canvas = document.createElement('canvas');
  canvas.width = 256;
  canvas.height = 1;
  canvas.className = 'ramp';
  const context = canvas.getContext('2d');
  const image = context.createImageData(256, 1);
  for (let k = 0; k < 256; k += 1) image.data.set([...colours.subarray(3 * k, 3 * k + 3), 255], 4 * k);
  context.putImageData(image, 0, 0);
  return canvas;
}
