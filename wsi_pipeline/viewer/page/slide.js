/* The page of one slide: one or two panes, with layers, teaching, neighbours and facts beside them. */
import { add, fill, h, icon, notice } from './dom.js';
import { slideHref } from './cohort.js';
import { layerLists } from './layerlist.js';
import { layerOf } from './layers.js';
import { Tools, classOf, paintMarks } from './marking.js';
import { MarkStore } from './markstore.js';
import { Pane, linkPanes } from './pane.js';
import { showAbout, similarPanel, slideChooser } from './panels.js';
import { get, isExport, slides } from './source.js';
import { TeachPanel } from './teach.js';

const TOOLS = [['hand', 'Pan (V)', 'v'], ['point', 'Point (P)', 'p'], ['rect', 'Rectangle (R)', 'r'], ['polygon', 'Polygon (G)', 'g'], ['brush', 'Brush (B)', 'b'], ['erase', 'Delete a mark (E)', 'e']];
const DEFAULT_OPACITY = { outline: 0.9, grid: 0.6, values: 0.55, classes: 0.5 };

export class SlidePage {
  /** `facts`: a promise of the slide's facts. `list`: the query of the cohort page, whose order `,` and `.` follow. */
  constructor(about, id, query, remember, { facts, list }) {
    Object.assign(this, { about, id, query, remember, list });
    this.panes = [];
    this.listed = 0; // the pane whose layers are listed
    this.linked = true;
    this.loaded = new Map();
    this.marks = { shown: true, opacity: 1, names: '' };
    this.canTeach = !isExport && about.run !== null;
    this.element = h('div.slide', {}, h('p.wait', {}, 'Opening the slide …'));
    this.chips = h('span', { style: { display: 'flex', gap: '6px' } });
    this.keys = (event) => this.key(event);
    document.addEventListener('keydown', this.keys);
    this.start(facts);
  }

  close() {
    document.removeEventListener('keydown', this.keys);
    this.closed = true;
    this.store?.close();
    this.teach?.close();
    this.panes.forEach((pane) => pane.close());
  }

  async start(asked) {
    let facts;
    try {
      facts = await asked;
    } catch (error) {
      this.element.classList.add('lost');
      fill(this.element, h('div.wait', { role: 'alert' }, h('h2', {}, `${this.id} cannot be shown`), h('p', {}, error.message)));
      this.compare.disabled = true;
      return;
    }
    if (this.closed) return;
    this.facts = facts;
    this.stages = h('div.panes');
    this.side = h('aside', { 'aria-label': 'Layers and marks' });
    fill(this.element, this.stages, this.side);
    const place = this.query.x ? { x: Number(this.query.x), y: Number(this.query.y), scale: Number(this.query.s) } : null;
    const pane = this.addPane(facts, place);
    this.told();
    this.tabs();
    if (this.canTeach) this.startTeaching(pane);
    this.toolbar(pane);
    pane.viewer.addHandler('animation-finish', () => this.keepPlace());
    if (this.query.with) {
      this.query.right ||= this.query.layers; // before the place is kept with the layers shown so far
      this.openSecond(this.query.with);
    }
    this.restoreLayers();
  }

  addPane(facts, place) {
    const pane = new Pane(facts, `Slide ${facts.id}`);
    add(this.stages, pane.element);
    pane.open(place);
    this.panes.push(pane);
    pane.listeners.pick.push((patch) => this.picked(pane, patch));
    for (const name of ['focusin', 'pointerdown']) pane.stage.addEventListener(name, () => this.listLayersOf(Math.max(0, this.panes.indexOf(pane))), true);
    if (facts.id === this.id) pane.painters.unshift((context, view) => paintMarks(context, view, this.marks.shown ? this.features : [], this.marks.opacity));
    const grid = facts.layers.find((layer) => layer.key === 'grid');
    if (grid) this.layer(facts.id, 'grid').then((layer) => { pane.grid = layer; }).catch(() => null);
    return pane;
  }

  /** A layer of a slide, requested only once. */
  layer(id, key) {
    const name = `${id}\n${key}`;
    if (!this.loaded.has(name)) {
      const asked = slides.layer(id, key).then(layerOf);
      asked.catch(() => this.loaded.delete(name));
      this.loaded.set(name, asked);
    }
    return this.loaded.get(name);
  }

  keepPlace() {
    const pane = this.panes[0];
    if (this.closed || !pane.viewer?.viewport) return;
    const centre = pane.centre();
    const shown = (one) => [...one.layers].map(([key, item]) => `${key}@${item.opacity}`).join('|');
    Object.assign(this.query, { x: centre.x.toFixed(0), y: centre.y.toFixed(0), s: pane.scale().toPrecision(4), layers: shown(pane), right: this.panes[1] && !this.panes[1].filling ? shown(this.panes[1]) : this.query.right });
    this.remember(this.query);
  }

  /* ---- header ---- */

  head() {
    const compare = h('button', { onclick: () => this.toggleSecond(), 'aria-pressed': this.panes.length > 1, title: 'Two slides or two models side by side' }, icon('split'), 'Side by side');
    this.compare = compare;
    const step = (way) => h('button.quiet', { onclick: () => this.neighbour(way), 'aria-label': way < 0 ? 'Previous slide' : 'Next slide', title: way < 0 ? 'Previous slide (,)' : 'Next slide (.)' }, icon(way < 0 ? 'left' : 'right'));
    return [step(-1), step(1), compare, h('button.quiet', { onclick: () => this.help(), 'aria-label': 'Keyboard shortcuts', title: 'Keyboard shortcuts (?)' }, icon('help'))];
  }

  /** The label and the prediction, beside the name. */
  told() {
    const { row, label } = this.facts;
    const wrong = row.predicted !== undefined && label !== null && String(row.predicted) !== label;
    fill(this.chips, label === null ? null : h('span.chip', { title: 'label' }, label),
      row.predicted === undefined ? null : h(wrong ? 'span.chip.bad' : 'span.chip', { title: 'predicted by models not trained on this patient' }, `predicted ${row.predicted}${row.p ? ` ${row.p.toFixed(2)}` : ''}`));
  }

  async neighbour(way) {
    const found = await slides.around(this.id, Object.fromEntries(new URLSearchParams(this.list.replace(/^\?/, ''))));
    const id = way < 0 ? found.previous : found.next;
    if (this.closed) return;
    if (id) location.hash = slideHref(id, { training: this.query.training });
    else notice(way < 0 ? 'This is the first slide' : 'This is the last slide');
  }

  help() {
    const rows = [['Arrows, + and −, 0, Home', 'pan, zoom, native resolution, fit (while the slide has focus)'], ['Two fingers', 'pan and zoom, with any tool'], ['V P R G B E', 'pan, point, rectangle, polygon, brush, delete a mark'], ['1 to 9', 'choose a class'], ['Enter', 'with a tool: mark at the cross; polygon and rectangle: Space sets a corner, Enter closes'], ['Ctrl+Z', 'undo the last mark'], [', and .', 'previous and next slide'], ['L', 'hide or show all layers'], ['M', 'patches similar to the selected one']];
    const dialog = h('dialog', { onclose: () => dialog.remove() }, h('h2', {}, 'Keyboard shortcuts'), h('dl', {}, rows.flatMap(([key, text]) => [h('dt', {}, key), h('dd', {}, text)])), h('form', { method: 'dialog', style: { marginTop: '14px' } }, h('button', {}, 'Close')));
    document.body.append(dialog);
    dialog.showModal();
  }

  key(event) {
    const typing = event.target.closest?.('input[type=text], input[type=search], select, dialog');
    if (typing || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && event.key === 'z') {
      this.store?.undo();
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    if (event.key === ',' || event.key === '.') this.neighbour(event.key === ',' ? -1 : 1);
    else if (event.key === '?') this.help();
    if (!this.facts) return; // it is opening, or cannot be shown
    const tool = TOOLS.find(([, , key]) => key === event.key.toLowerCase());
    if (tool && this.canTeach) this.chooseTool(tool[0]);
    else if (/^[1-9]$/.test(event.key)) this.teach?.chooseNumber(Number(event.key) - 1);
    else if (event.key === 'l') this.toggleLayers();
    else if (event.key === 'm' && this.panels.like && this.likeOf) this.openTab('like');
  }

  /* ---- tools and marks ---- */

  toolbar(pane) {
    const tools = this.canTeach ? TOOLS.map(([name, title]) => h('button', { 'data-tool': name, 'aria-pressed': name === 'hand', 'aria-label': title.replace(/ \(.\)$/, ''), title, onclick: () => this.chooseTool(name) }, icon(name))) : [];
    const undo = this.canTeach ? [h('button', { onclick: () => this.store.undo(), 'aria-label': 'Undo', title: 'Undo (Ctrl+Z)' }, icon('undo')), h('hr')] : [];
    add(pane.element, h('div.tools', { role: 'toolbar', 'aria-label': 'Tools' }, tools, undo, pane.zoomButtons()));
  }

  startTeaching(pane) {
    this.store = new MarkStore(this.id, () => this.marksChanged());
    this.teach = new TeachPanel({
      id: () => this.id, about: this.about, store: () => this.store, tools: () => this.tools, goTo: (patch) => this.goTo(patch), classified: () => this.classMapArrived(),
    });
    this.tools = new Tools(pane, this.store, () => this.teach.current());
    fill(this.panels.teach, this.teach.element);
  }

  /** The marks on this slide; in an exported folder those that it came with. */
  get features() {
    return this.store?.features || this.facts.marks || [];
  }

  marksChanged() {
    this.teach?.marksChanged();
    for (const pane of this.panes) pane.redraw();
    const names = this.features.map(classOf).join('|');
    if (names !== this.marks.names) this.showLayerPanel(); // the legend counts them
    this.marks.names = names;
  }

  chooseTool(name) {
    this.tools.choose(name);
    for (const button of this.element.querySelectorAll('[data-tool]')) button.setAttribute('aria-pressed', button.dataset.tool === name);
    if (name !== 'hand') this.openTab('teach');
  }

  /** Show the newest class map after a classification was written. */
  async classMapArrived() {
    const key = `classes:${this.about.tuned}`;
    try {
      const facts = await slides.facts(this.id, this.query.training);
      if (this.closed) return;
      this.facts.layers = this.panes[0].facts.layers = facts.layers;
      if (!facts.layers.some((layer) => layer.key === key)) return;
      this.loaded.delete(`${this.id}\n${key}`);
      for (const pane of this.panes) pane.hide(key);
      this.showLayerPanel();
      await this.setLayer(this.panes[0], facts.layers.find((layer) => layer.key === key), true);
      this.showLayerPanel();
      notice('The class map of this slide is ready');
    } catch (error) {
      notice(error.message, true);
    }
  }

  /* ---- tabs ---- */

  tabs() {
    const names = [['layers', 'Layers'], ...(this.canTeach ? [['teach', 'Teach']] : []), ...(isExport || !this.about.encoders.length ? [] : [['like', 'Similar']]), ['about', 'About']];
    this.panels = {};
    this.tabButtons = {};
    const list = h('div', { role: 'tablist', 'aria-label': 'Panel' }, names.map(([key, text]) => {
      this.tabButtons[key] = h('button', { role: 'tab', id: `tab-${key}`, 'aria-controls': `panel-${key}`, onclick: () => this.openTab(key), onkeydown: (event) => this.tabKey(event, names.map((name) => name[0]), key) }, text);
      return this.tabButtons[key];
    }));
    add(this.side, list);
    for (const [key] of names) {
      this.panels[key] = h('div', { role: 'tabpanel', id: `panel-${key}`, 'aria-labelledby': `tab-${key}`, tabindex: 0, hidden: true });
      add(this.side, this.panels[key]);
    }
    this.showLayerPanel();
    showAbout(this, this.panels.about);
    this.showSimilar = this.panels.like ? similarPanel(this, this.panels.like) : null;
    this.openTab(this.query.tab && this.panels[this.query.tab] ? this.query.tab : 'layers');
  }

  tabKey(event, keys, key) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    const next = keys[(keys.indexOf(key) + way + keys.length) % keys.length];
    this.openTab(next);
    this.tabButtons[next].focus();
    event.preventDefault();
  }

  openTab(key) {
    for (const [name, panel] of Object.entries(this.panels)) {
      panel.hidden = name !== key;
      this.tabButtons[name].setAttribute('aria-selected', name === key);
      this.tabButtons[name].tabIndex = name === key ? 0 : -1;
    }
    this.query.tab = key === 'layers' ? '' : key;
    this.remember(this.query);
    if (key === 'like') this.showSimilar();
  }

  /* ---- layers ---- */

  showLayerPanel() {
    const used = document.activeElement?.closest('#panel-layers [data-layer] input');
    const places = used && [used.closest('.list').id, used.closest('[data-layer]').dataset.layer, used.type];
    fill(this.panels.layers, layerLists(this));
    if (!places) return;
    const [list, key, type] = places.map((text) => CSS.escape(text)); // the focus stays where it was
    this.panels.layers.querySelector(`#${list} [data-layer="${key}"] input[type=${type}]`)?.focus();
  }

  /** List the layers of pane `at`, the one that is used. `keep` the focus where it was. */
  listLayersOf(at, keep = false) {
    if (this.listed === at && !keep) return;
    this.listed = at;
    this.showLayerPanel();
    if (keep) this.panels.layers.querySelector('.which [aria-pressed=true]')?.focus();
  }

  async setLayer(pane, entry, on, opacity) {
    if (!on) pane.hide(entry.key);
    else pane.show(entry.key, await this.layer(pane.facts.id, entry.key), opacity ?? DEFAULT_OPACITY[entry.kind]);
    this.keepPlace();
  }

  async restoreLayers() {
    await this.showLayers(this.panes[0], this.query.layers ?? 'tissue@0.9');
    if (!this.closed) this.showLayerPanel();
  }

  /** Show layers of a pane, `key@opacity|key@opacity`; those that its slide does not have are left out. */
  async showLayers(pane, text) {
    const wanted = text.split('|').filter(Boolean).map((one) => [one.slice(0, one.lastIndexOf('@')), Number(one.slice(one.lastIndexOf('@') + 1))]);
    for (const [key, opacity] of wanted) {
      const entry = pane.facts.layers.find((layer) => layer.key === key);
      if (entry) await this.setLayer(pane, entry, true, opacity).catch(() => null);
    }
  }

  toggleLayers() {
    for (const pane of this.panes) {
      if (pane.layers.size) [pane.off, pane.layers] = [pane.layers, new Map()];
      else [pane.layers, pane.off] = [pane.off || new Map(), null];
      pane.redraw();
    }
    this.showLayerPanel();
  }

  /* ---- side by side ---- */

  toggleSecond() {
    if (this.panes.length > 1) {
      this.panes.pop().close();
      this.stages.lastChild.remove();
      fill(this.panes[0].tag);
      this.query.with = this.query.right = '';
      this.listed = 0;
      this.compare.setAttribute('aria-pressed', 'false');
      this.showLayerPanel();
      this.remember(this.query);
    } else this.openSecond(this.id);
  }

  async openSecond(id) {
    let facts;
    try {
      facts = id === this.id ? this.facts : await slides.facts(id, this.query.training);
    } catch (error) {
      notice(error.message, true);
      return;
    }
    if (this.closed) return;
    if (this.panes.length > 1) {
      this.panes.pop().close();
      this.stages.lastChild.remove();
    }
    const first = this.panes[0];
    const second = this.addPane({ ...facts }, null);
    second.viewer.addHandler('open', () => {
      if (facts.id === this.id) second.go({ ...first.centre(), scale: first.scale() }, true);
      this.take = linkPanes(first, second, () => this.linked && this.panes[1] === second);
      this.take();
    });
    this.query.with = id;
    this.compare?.setAttribute('aria-pressed', 'true');
    const link = h('button', { 'aria-pressed': this.linked, title: 'Pan and zoom both panes together', onclick: () => {
      this.linked = !this.linked;
      link.setAttribute('aria-pressed', this.linked);
      if (this.linked) this.take?.();
    } }, icon('link'), 'Linked');
    add(fill(second.tag), slideChooser(id, (value) => this.openSecond(value)), link);
    second.tag.style.left = '12px';
    this.showLayerPanel();
    this.remember(this.query);
    second.filling = true;
    await this.showLayers(second, this.query.right || this.query.layers || 'tissue@0.9'); // the same as on the left, to compare them
    second.filling = false;
    if (!this.closed && this.panes[1] === second) {
      this.showLayerPanel();
      this.keepPlace();
    }
  }

  /* ---- similar patches ---- */

  picked(pane, patch) {
    this.likeOf = { id: pane.facts.id, patch };
    if (this.panels.like && !this.panels.like.hidden) this.showSimilar();
  }

  goToIn(pane, patch) {
    pane.goPatch(patch);
    this.likeOf = { id: pane.facts.id, patch };
  }

  goTo(patch) {
    if (patch.id === this.id) this.goToIn(this.panes[0], patch);
    else location.hash = slideHref(patch.id, { training: this.query.training, tab: this.query.tab, x: patch.x + patch.side / 2, y: patch.y + patch.side / 2, s: Math.min(2, 150 / patch.side), layers: this.query.layers });
  }
}
