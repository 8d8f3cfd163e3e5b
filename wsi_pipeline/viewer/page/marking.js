/* The drawing tools, and how marks look. */
import { notice } from './dom.js';
import { newId } from './markstore.js';

const ON_TOP = 3;
const DOUBLE_MS = 350;
const DOUBLE_PX = 10;

const ringsOf = (geometry) => (geometry.type === 'Polygon' ? geometry.coordinates : geometry.type === 'MultiPolygon' ? geometry.coordinates.flat() : []);

export function classOf(feature) {
  return feature.properties?.classification?.name || '';
}

export function colourOf(feature) {
  const colour = feature.properties?.classification?.color;
  return Array.isArray(colour) ? `rgb(${colour.join(',')})` : '#888888';
}

/** Draw marks: areas with a faint fill, points as pins. */
export function paintMarks(context, view, features, opacity = 1) {
  context.save();
  context.globalAlpha = opacity;
  for (const feature of features) {
    const geometry = feature.geometry;
    context.strokeStyle = context.fillStyle = colourOf(feature);
    const at = ([x, y]) => [view.x + x * view.scale, view.y + y * view.scale];
    if (geometry.type === 'Point') {
      const [x, y] = at(geometry.coordinates);
      context.beginPath();
      context.arc(x, y, 6, 0, 7);
      context.fill();
      context.lineWidth = 2;
      context.strokeStyle = '#ffffff';
      context.stroke();
      continue;
    }
    context.beginPath();
    if (geometry.type === 'LineString') {
      geometry.coordinates.forEach((point, k) => context[k ? 'lineTo' : 'moveTo'](...at(point)));
      context.lineCap = context.lineJoin = 'round';
      context.lineWidth = Math.max(2, 2 * (feature.properties.brush_radius || 0) * view.scale);
      context.globalAlpha = 0.4 * opacity;
      context.stroke();
      context.globalAlpha = opacity;
      continue;
    }
    for (const ring of ringsOf(geometry)) {
      ring.forEach((point, k) => context[k ? 'lineTo' : 'moveTo'](...at(point)));
      context.closePath();
    }
    context.globalAlpha = 0.22 * opacity;
    context.fill('evenodd');
    context.globalAlpha = opacity;
    context.lineWidth = 2;
    context.stroke();
  }
  context.restore();
}

function inside(point, feature, near) {
  const geometry = feature.geometry;
  if (geometry.type === 'Point') return Math.hypot(geometry.coordinates[0] - point.x, geometry.coordinates[1] - point.y) < near;
  let odd = false;
  for (const ring of ringsOf(geometry)) {
    for (let k = 0, last = ring.length - 1; k < ring.length; last = k, k += 1) {
      const [[x, y], [a, b]] = [ring[k], ring[last]];
      if (y > point.y !== b > point.y && point.x < ((a - x) * (point.y - y)) / (b - y) + x) odd = !odd;
    }
  }
  return odd;
}

/** The drawing tools. While one is selected, it handles the pointer of a pane. */
export class Tools {
  constructor(pane, store, current) {
    this.pane = pane;
    this.store = store;
    this.current = current;
    this.tool = 'hand';
    this.radius = 24;
    this.points = [];
    this.fingers = false; // whether the touch in progress has two fingers: it zooms, and marks nothing
    this.painter = (context, view) => this.paint(context, view);
    pane.painters.push(this.painter);
    const on = (name, work) => pane.viewer.addHandler(name, (event) => { if (this.tool !== 'hand') work(event); });
    on('canvas-press', (event) => this.press(event));
    on('canvas-drag', (event) => { event.preventDefaultAction = true; if (!this.fingers) this.drag(event); });
    on('canvas-drag-end', (event) => { event.preventDefaultAction = true; });
    on('canvas-release', () => { if (!this.fingers) this.release(); });
    on('canvas-click', (event) => { event.preventDefaultAction = true; if (event.quick && !this.fingers) this.click(event); });
    on('canvas-double-click', (event) => { event.preventDefaultAction = true; if (!this.fingers) this.finish(); });
    pane.stage.addEventListener('pointerdown', (event) => this.touched(event), true);
    pane.stage.addEventListener('keydown', (event) => this.key(event));
    pane.listeners.point.push(() => { if (this.tool !== 'hand') pane.redraw(); });
  }

  choose(tool) {
    this.tool = tool;
    this.points = [];
    this.pane.busy = tool !== 'hand';
    this.pane.cross.classList.toggle('on', tool !== 'hand');
    this.pane.viewer.canvas.style.cursor = { hand: 'grab', erase: 'not-allowed' }[tool] || 'crosshair';
    this.pane.redraw();
  }

  get pixels() {
    return this.radius / this.pane.scale();
  }

  key(event) {
    if (this.tool === 'hand' || event.ctrlKey || event.metaKey) return;
    if (event.key === 'Enter') {
      const point = this.pane.centre();
      if (this.tool === 'polygon' && this.points.length > 2) this.finish();
      else if (this.tool === 'rect' && this.points.length) this.rectangle(this.points[0], point);
      else if (this.tool === 'point') this.make({ type: 'Point', coordinates: [point.x, point.y] });
      else if (this.tool === 'brush') this.make({ type: 'LineString', coordinates: [[point.x, point.y], [point.x + 0.01, point.y]] }, this.pixels);
      else if (this.tool === 'erase') this.erase(point);
    } else if (event.key === ' ' && this.tool === 'polygon') this.points.push(this.pane.centre());
    else if (event.key === ' ' && this.tool === 'rect') this.points = [this.pane.centre()];
    else if (event.key === 'Escape') this.points = [];
    else return;
    event.preventDefault();
    this.pane.redraw();
  }

  /** A second finger ends the stroke that the first has begun; corners set before stay. */
  touched(event) {
    if (event.pointerType !== 'touch') return;
    if (event.isPrimary) this.before = this.tool === 'polygon' ? [...this.points] : [];
    else if (!this.fingers) {
      this.points = this.before || [];
      this.dragged = false;
      this.pane.redraw();
    }
    this.fingers = !event.isPrimary;
  }

  press(event) {
    const point = this.pane.imagePoint(event.position);
    if (this.tool === 'rect') this.points = [point, point];
    else if (this.tool === 'brush') this.points = [point];
  }

  drag(event) {
    const point = this.pane.imagePoint(event.position);
    if (this.tool === 'rect' && this.points.length) this.points = [this.points[0], point];
    else if (this.tool === 'brush' || (this.tool === 'polygon' && this.far(point))) this.points.push(point);
    this.dragged = true;
    this.pane.redraw();
  }

  far(point) {
    const last = this.points.at(-1);
    return !last || Math.hypot(point.x - last.x, point.y - last.y) * this.pane.scale() > 4;
  }

  release() {
    if (this.tool === 'rect') {
      if (this.points.length === 2) this.rectangle(...this.points);
      this.points = [];
    } else if (this.tool === 'brush' && this.points.length) {
      const line = this.points.map((point) => [point.x, point.y]);
      if (line.length === 1) line.push([line[0][0] + 0.01, line[0][1]]);
      this.make({ type: 'LineString', coordinates: line }, this.pixels);
      this.points = [];
    } else if (this.tool === 'polygon' && this.dragged && this.points.length > 8) this.finish();
    this.dragged = false;
    this.pane.redraw();
  }

  rectangle(a, b) {
    const ring = [[a.x, a.y], [b.x, a.y], [b.x, b.y], [a.x, b.y], [a.x, a.y]];
    if (Math.abs(a.x - b.x) * this.pane.scale() > 3 && Math.abs(a.y - b.y) * this.pane.scale() > 3) this.make({ type: 'Polygon', coordinates: [ring] });
    this.points = [];
  }

  click(event) {
    const point = this.pane.imagePoint(event.position);
    if (this.tool === 'point') this.put(event.position, point);
    else if (this.tool === 'erase') this.erase(point);
    else if (this.tool === 'polygon') {
      const first = this.points[0];
      if (this.points.length > 2 && Math.hypot(point.x - first.x, point.y - first.y) * this.pane.scale() < 10) this.finish();
      else if (this.far(point)) this.points.push(point);
    }
    this.pane.redraw();
  }

  /** A point; the second click of a double click makes none. */
  put(position, point) {
    const [last, now] = [this.clicked, performance.now()];
    this.clicked = { position, now };
    if (last && now - last.now < DOUBLE_MS && position.distanceTo(last.position) < DOUBLE_PX) return;
    this.make({ type: 'Point', coordinates: [point.x, point.y] });
  }

  finish() {
    if (this.tool === 'polygon' && this.points.length > 2) {
      const ring = this.points.map((point) => [point.x, point.y]);
      this.make({ type: 'Polygon', coordinates: [[...ring, ring[0]]] });
    }
    this.points = [];
    this.pane.redraw();
  }

  erase(point) {
    const found = this.store.features.findLast((feature) => inside(point, feature, 10 / this.pane.scale()));
    if (found) this.store.remove(found.id);
  }

  make(geometry, radius) {
    const chosen = this.current();
    if (!chosen) {
      notice('Add a class before marking', true);
      return;
    }
    const color = [1, 3, 5].map((at) => parseInt(chosen.colour.slice(at, at + 2), 16));
    const properties = { objectType: 'annotation', classification: { name: chosen.name, color } };
    if (radius) properties.brush_radius = radius;
    this.store.put({ type: 'Feature', id: newId(), geometry, properties });
  }

  paint(context, view) {
    const at = (point) => [view.x + point.x * view.scale, view.y + point.y * view.scale];
    const colour = this.current()?.colour || '#888888';
    context.save();
    context.strokeStyle = context.fillStyle = colour;
    if (this.tool === 'brush' && this.pane.pointer) {
      context.beginPath();
      context.arc(...at(this.pane.pointer), this.radius, 0, 7);
      context.lineWidth = 1.5;
      context.stroke();
    }
    if (this.points.length) {
      context.beginPath();
      if (this.tool === 'rect') {
        const [[a, b], [c, d]] = [this.points[0], this.points[1] || this.pane.centre()].map(at);
        context.rect(Math.min(a, c), Math.min(b, d), Math.abs(a - c), Math.abs(b - d));
      } else this.points.forEach((point, k) => context[k ? 'lineTo' : 'moveTo'](...at(point)));
      if (this.tool === 'brush') {
        context.lineCap = context.lineJoin = 'round';
        context.lineWidth = 2 * this.radius;
        context.globalAlpha = 0.4;
      } else context.lineWidth = 2;
      if (this.tool === 'polygon' && this.pane.pointer && !this.dragged) context.lineTo(...at(this.pane.pointer));
      context.stroke();
      if (this.tool === 'polygon') for (const point of this.points) context.fillRect(at(point)[0] - ON_TOP, at(point)[1] - ON_TOP, 2 * ON_TOP, 2 * ON_TOP);
    }
    context.restore();
  }
}
