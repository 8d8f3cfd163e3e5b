/* One slide in deep zoom, with layers on top, a scale bar and what is under the pointer. */
import { counted, h, fill, icon, number } from './dom.js';
import { isExport, tileUrl } from './source.js';

const LENGTHS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
const HELD = 100e6;
const ASK_AGAIN_MS = 1500;
const PATIENCE_MS = 600000; // the coarsest tile of a slide without coarse levels takes long to make
const [FEWEST_HELD, MOST_HELD] = [48, 400];

/** The slide's own levels and tiles, in the form OpenSeadragon requests. */
function tileSourceOf(facts) {
  const levels = facts.levels;
  const aspect = facts.height / facts.width;
  return {
    width: facts.width, height: facts.height, tileSize: levels.at(-1).tile_width, minLevel: 0, maxLevel: levels.length - 1,
    getLevelScale: (level) => levels[level].width / facts.width,
    getTileWidth: (level) => levels[level].tile_width,
    getTileHeight: (level) => levels[level].tile_height,
    getNumTiles: (level) => new OpenSeadragon.Point(Math.ceil(levels[level].width / levels[level].tile_width), Math.ceil(levels[level].height / levels[level].tile_height)),
    getTileBounds: (level, x, y, isSource) => {
      const { width, height, tile_width: across, tile_height: down } = levels[level];
      const w = Math.min(across, width - x * across);
      const t = Math.min(down, height - y * down);
      if (isSource) return new OpenSeadragon.Rect(0, 0, w, t);
      return new OpenSeadragon.Rect((x * across) / width, ((y * down) / height) * aspect, w / width, (t / height) * aspect);
    },
    getTileUrl: (level, x, y) => tileUrl(facts, level, x, y),
    downloadTileStart: isExport ? loadFromDisk : loadTile, downloadTileAbort: (job) => job.userData.stop.abort(),
  };
}

/**
 * Load a tile without an <img>: the browser keeps what it has decoded for those, up to half a gigabyte, though we keep
 * the tile ourselves.
 */
async function loadTile(job) {
  const { signal } = (job.userData.stop = new AbortController());
  try {
    const answer = await reached(job.src, signal);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const picture = await createImageBitmap(await answer.blob(), { colorSpaceConversion: 'none' });
    job.finish(drawn(picture), null, 'context2d');
    picture.close();
  } catch (error) {
    if (!signal.aborted) job.fail(error.message, null);
  }
}

/** Load a tile of a page on disk, which has no way but an <img>: it is drawn once and let go. */
function loadFromDisk(job) {
  const picture = new Image();
  const drop = () => {
    picture.onload = picture.onerror = null;
    picture.src = '';
  };
  job.userData.stop = { abort: drop };
  picture.onload = () => {
    job.finish(drawn(picture), null, 'context2d');
    drop();
  };
  picture.onerror = () => job.fail('the file is missing or damaged', null);
  picture.src = job.src;
}

function drawn(picture) {
  const context = Object.assign(document.createElement('canvas'), { width: picture.width, height: picture.height }).getContext('2d', { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return context;
}

/** The answer of the server; while it is away, as after a restart, it is asked again. */
async function reached(url, signal) {
  for (;;) {
    try {
      return await fetch(url, { signal });
    } catch (error) {
      if (signal.aborted) throw error;
      await new Promise((done) => { setTimeout(done, ASK_AGAIN_MS); });
      if (signal.aborted) throw error;
    }
  }
}

/** How many decoded tiles to keep: HELD bytes of them, but always those of a view. */
function tilesHeld(facts) {
  const { tile_width: across, tile_height: down } = facts.levels.at(-1);
  return Math.round(Math.min(MOST_HELD, Math.max(FEWEST_HELD, HELD / (4 * across * down))));
}

export class Pane {
  /** `told` is called with {point, patch} when the pointer moves or a patch is picked. */
  constructor(facts, label) {
    this.facts = facts;
    this.layers = new Map();
    this.painters = [];
    this.listeners = { point: [], pick: [], view: [] };
    this.picked = null;
    this.over = h('canvas.over');
    this.stage = h('div.stage', { tabindex: 0, role: 'application', 'aria-label': `${label}. Arrow keys pan, plus and minus zoom, Home fits the slide.` });
    this.bar = h('i');
    this.length = h('span.num');
    this.where = h('span.num');
    this.value = h('span', { hidden: true });
    this.zoomText = h('span.num');
    this.tag = h('div.tag');
    this.missing = h('span.missing', { role: 'status' });
    this.lacking = 0;
    const readout = h('div.readout', {}, this.missing, h('div.scale', { hidden: !facts.mpp }, this.bar, this.length), this.zoomText, this.where, this.value);
    this.cross = h('div.cross');
    this.element = h('div.pane', {}, this.stage, this.over, this.cross, this.tag, readout);
    this.element.pane = this; // for scripts, and for the tests
  }

  /** Start once the element is on the page. */
  open(place) {
    this.viewer = new OpenSeadragon.Viewer({
      element: this.stage, tileSources: tileSourceOf(this.facts), drawer: 'canvas', showNavigationControl: false, showNavigator: true,
      navigatorPosition: 'TOP_RIGHT', navigatorSizeRatio: 0.16, navigatorAutoFade: false, navigatorDisplayRegionColor: '#4f46b8',
      animationTime: 0.35, springStiffness: 9, maxZoomPixelRatio: 4, minZoomImageRatio: 0.7, visibilityRatio: 0.2, minPixelRatio: 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { clickToZoom: false }, gestureSettingsPen: { clickToZoom: false },
      imageLoaderLimit: 6, timeout: PATIENCE_MS, maxTilesPerFrame: 6, maxImageCacheCount: tilesHeld(this.facts), immediateRender: false, placeholderFillStyle: null, silenceMultiImageWarnings: true,
    });
    this.viewer.canvas.tabIndex = -1;
    this.viewer.addHandler('open', () => {
      if (place) this.go(place, true);
      this.snap();
      this.redraw();
    });
    this.viewer.addHandler('update-viewport', () => this.draw());
    this.viewer.addHandler('viewport-change', () => this.listeners.view.forEach((told) => told()));
    this.viewer.addHandler('animation-finish', () => this.snap());
    this.viewer.addHandler('tile-load-failed', (event) => this.missed(event.message));
    this.viewer.addHandler('canvas-pinch', (event) => this.pinch(event));
    this.viewer.addHandler('canvas-click', (event) => {
      if (!event.quick || event.preventDefaultAction || this.busy) return;
      this.pick(this.imagePoint(event.position));
    });
    this.stage.addEventListener('pointermove', (event) => this.hover(event));
    this.stage.addEventListener('pointerleave', () => { this.where.textContent = ''; this.value.hidden = true; });
    this.stage.addEventListener('keydown', (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.redraw());
    this.resized.observe(this.element);
  }

  /** Say why part of the picture stays empty. */
  missed(why) {
    this.lacking += 1;
    this.missing.textContent = `${counted(this.lacking, 'tile')} cannot be shown${isExport ? '' : `: ${why}`}`;
  }

  close() {
    this.resized?.disconnect();
    this.viewer?.destroy();
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const viewport = this.viewer.viewport;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (step) viewport.panBy(new OpenSeadragon.Point(step[0], step[1]).times((event.shiftKey ? 0.5 : 0.12) * viewport.getBounds().width));
    else if (event.key === '+' || event.key === '=') viewport.zoomBy(1.4);
    else if (event.key === '-') viewport.zoomBy(1 / 1.4);
    else if (event.key === '0') this.go({ ...this.centre(), scale: 1 / (window.devicePixelRatio || 1) });
    else if (event.key === 'Home') viewport.goHome();
    else if (event.key === 'Enter' && !this.busy) this.pick(this.centre());
    else return;
    event.preventDefault();
  }

  /** Two fingers: what lies between them stays there. OpenSeadragon's own zoom drifts, as each finger reports its moves alone. */
  pinch(event) {
    event.preventDefaultPanAction = event.preventDefaultZoomAction = true;
    const viewport = this.viewer.viewport;
    const held = viewport.pointFromPixel(event.lastCenter, true);
    const zoom = (viewport.getZoom(true) * event.distance) / event.lastDistance;
    viewport.zoomTo(Math.min(viewport.getMaxZoom(), Math.max(viewport.getMinZoom(), zoom)), null, true);
    viewport.panBy(held.minus(viewport.pointFromPixel(event.center, true)), true);
    viewport.applyConstraints();
  }

  /** Level-0 pixel at a position in the viewer. */
  imagePoint(position) {
    const point = this.viewer.viewport.pointFromPixel(position, true);
    return { x: point.x * this.facts.width, y: point.y * this.facts.width };
  }

  centre() {
    const point = this.viewer.viewport.getCenter(true);
    return { x: point.x * this.facts.width, y: point.y * this.facts.width };
  }

  /** Screen pixels per level-0 pixel, now or at the end of an animation. */
  scale(current = true) {
    const viewport = this.viewer.viewport;
    return (viewport.getContainerSize().x * viewport.getZoom(current)) / this.facts.width;
  }

  /** Show a place: {x, y} in level-0 pixels, `scale` in screen pixels per level-0 pixel. */
  go(place, now = false) {
    const viewport = this.viewer.viewport;
    if (place.scale) viewport.zoomTo((place.scale * this.facts.width) / viewport.getContainerSize().x, null, now);
    viewport.panTo(new OpenSeadragon.Point(place.x / this.facts.width, place.y / this.facts.width), now);
    viewport.applyConstraints(now);
  }

  /** Near native resolution, align with the screen's pixels, to show the slide's own pixels, not interpolated ones. */
  snap() {
    const ratio = window.devicePixelRatio || 1;
    const viewport = this.viewer.viewport;
    if (Math.abs(this.scale(false) * ratio - 1) > 0.02) return;
    viewport.zoomTo(this.facts.width / ratio / viewport.getContainerSize().x, null, true);
    const origin = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const off = new OpenSeadragon.Point(origin.x - Math.round(origin.x * ratio) / ratio, origin.y - Math.round(origin.y * ratio) / ratio);
    if (Math.abs(off.x) + Math.abs(off.y) > 1e-6) viewport.panBy(viewport.deltaPointsFromPixels(off, true), true);
  }

  /** Show a patch large enough to see cells. */
  goPatch(patch) {
    const enough = Math.max(this.scale(false), 150 / patch.side);
    this.go({ x: patch.x + patch.side / 2, y: patch.y + patch.side / 2, scale: Math.min(enough, 2) });
    this.picked = patch;
    this.redraw();
  }

  hover(event) {
    const box = this.stage.getBoundingClientRect();
    const point = this.imagePoint(new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top));
    this.where.textContent = `x ${number(Math.floor(point.x))}  y ${number(Math.floor(point.y))}`;
    const said = this.saidAt(point);
    this.value.hidden = !said.length;
    fill(this.value, said.flatMap((text, at) => (at ? [h('br'), text] : [text])));
    this.pointer = point;
    this.listeners.point.forEach((told) => told(point));
  }

  saidAt(point) {
    const said = [];
    for (const { layer } of this.layers.values()) {
      if (!layer.said) continue;
      const k = layer.under(point.x, point.y);
      if (k >= 0) said.push(`${layer.answer.name}: ${layer.said(k)}`);
    }
    return said;
  }

  pick(point) {
    for (const cells of [...[...this.layers.values()].map((item) => item.layer), this.grid]) {
      if (!cells?.under) continue;
      const k = cells.under(point.x, point.y);
      if (k < 0) continue;
      this.picked = cells.patch(k);
      this.redraw();
      this.listeners.pick.forEach((told) => told(this.picked));
      return;
    }
  }

  show(key, layer, opacity) {
    this.layers.set(key, { layer, opacity });
    this.redraw();
  }

  hide(key) {
    this.layers.delete(key);
    this.redraw();
  }

  redraw() {
    if (this.viewer?.viewport && this.viewer.world.getItemCount()) requestAnimationFrame(() => this.viewer?.viewport && this.draw());
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = this.stage.clientWidth;
    const height = this.stage.clientHeight;
    if (!width || !height) return;
    if (this.over.width !== Math.round(width * ratio) || this.over.height !== Math.round(height * ratio)) {
      this.over.width = Math.round(width * ratio);
      this.over.height = Math.round(height * ratio);
    }
    const origin = this.viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const view = { x: origin.x, y: origin.y, scale: this.scale(), width, height };
    this.exact(view, ratio);
    const context = this.over.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    for (const { layer, opacity } of this.layers.values()) layer.draw(context, view, opacity);
    if (this.picked) {
      const side = this.picked.side * view.scale;
      for (const [grow, colour] of [[1.5, '#ffffff'], [0, '#4f46b8']]) {
        context.strokeStyle = colour;
        context.lineWidth = 2 + grow;
        context.strokeRect(view.x + this.picked.x * view.scale, view.y + this.picked.y * view.scale, side, side);
      }
    }
    for (const paint of this.painters) paint(context, view);
    this.measure(view);
  }

  /**
   * OpenSeadragon draws tiles that do not overlap one pixel too large, to hide seams. Tiles aligned with the screen's
   * pixels have no seams, and we want to show the slide's own pixels.
   */
  exact(view, ratio) {
    const whole = (value) => Math.abs(value * ratio - Math.round(value * ratio)) < 1e-3;
    const overlap = Math.abs(view.scale * ratio - 1) < 1e-6 && whole(view.x) && whole(view.y) ? 1e-9 : 0;
    const source = this.viewer.world.getItemAt(0)?.source;
    if (!source || source.tileOverlap === overlap) return;
    source.tileOverlap = overlap;
    this.viewer.forceRedraw();
  }

  measure(view) {
    const mpp = this.facts.mpp;
    const shown = mpp ? mpp / view.scale : null;
    const power = this.facts.objective ? this.facts.objective * view.scale : mpp ? (10 / mpp) * view.scale : null;
    const words = [shown ? `${shown.toPrecision(3)} µm per pixel` : `${(100 * view.scale).toPrecision(3)} %`];
    if (power) words.push(`${power < 10 ? power.toFixed(1) : power.toFixed(0)}×`);
    this.zoomText.textContent = words.join('  ·  ');
    if (!mpp) return;
    const length = LENGTHS.filter((value) => value / shown < Math.min(190, view.width / 4)).at(-1) || 1;
    this.bar.style.width = `${length / shown}px`;
    this.length.textContent = length < 1000 ? `${length} µm` : `${length / 1000} mm`;
  }

  /** Zoom buttons, for users without a mouse wheel. */
  zoomButtons() {
    const zoom = (factor) => () => this.viewer.viewport.zoomBy(factor).applyConstraints();
    return [
      h('button', { onclick: zoom(1.5), 'aria-label': 'Zoom in', title: 'Zoom in (+)' }, icon('plus')),
      h('button', { onclick: zoom(1 / 1.5), 'aria-label': 'Zoom out', title: 'Zoom out (−)' }, icon('minus')),
      h('button.small', { onclick: () => this.go({ ...this.centre(), scale: 1 / (window.devicePixelRatio || 1) }), 'aria-label': 'Native resolution', title: 'Native resolution: one slide pixel per screen pixel (0)' }, '1:1'),
      h('button', { onclick: () => this.viewer.viewport.goHome(), 'aria-label': 'Fit slide to window', title: 'Fit slide to window (Home)' }, icon('fit')),
    ];
  }
}

/** Synchronise two panes: same place if they show the same slide, same movement if they do not. */
export function linkPanes(one, other, linked) {
  const moved = new Map(); // where each was put by the other: it must not move that one in turn, which would end its animation
  const place = ({ viewer: { viewport } }) => [viewport.getCenter(true).x, viewport.getCenter(true).y, viewport.getZoom(true)];
  const offset = { x: 0, y: 0 };
  const ratio = () => (one.facts.mpp && other.facts.mpp ? one.facts.mpp / other.facts.mpp : one.facts.width / other.facts.width);
  const take = () => {
    const same = one.facts.id === other.facts.id;
    const [a, b] = [one.centre(), other.centre()];
    offset.x = same ? 0 : b.x - a.x * ratio();
    offset.y = same ? 0 : b.y - a.y * ratio();
  };
  const follow = (from, to, forth) => () => {
    const put = moved.get(from);
    moved.delete(from);
    if (!linked() || (put && place(from).every((value, at) => Math.abs(value - put[at]) < 1e-9))) return;
    const point = from.centre();
    const r = ratio();
    const target = forth ? { x: point.x * r + offset.x, y: point.y * r + offset.y } : { x: (point.x - offset.x) / r, y: (point.y - offset.y) / r };
    const scale = from.scale(true);
    const now = to.viewer.viewport;
    now.zoomTo(((forth ? scale / r : scale * r) * to.facts.width) / now.getContainerSize().x, null, true);
    now.panTo(new OpenSeadragon.Point(target.x / to.facts.width, target.y / to.facts.width), true);
    moved.set(to, place(to));
  };
  one.listeners.view.push(follow(one, other, true));
  other.listeners.view.push(follow(other, one, false));
  return take;
}
