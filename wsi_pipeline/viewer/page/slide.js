/* The page of one slide: one or two panes, with layers, teaching, neighbours and facts beside them. */
import { add, command, fill, h, icon, notice, number, selectOf } from './dom.js';
import { slideHref } from './cohort.js';
import { layerOf, rampOf } from './layers.js';
import { MarkStore, Tools, paintMarks } from './marking.js';
import { Pane, linkPanes } from './pane.js';
import { sheetOf } from './sheet.js';
import { associatedUrl, get, isExport, slides, thumbnailUrl } from './source.js';
import { TeachPanel } from './teach.js';

const TOOLS = [['hand', 'Move (V)', 'v'], ['point', 'Point (P)', 'p'], ['rect', 'Rectangle (R)', 'r'], ['polygon', 'Polygon (G)', 'g'], ['brush', 'Brush (B)', 'b'], ['erase', 'Erase a mark (E)', 'e']];
const DEFAULT_OPACITY = { outline: 0.9, grid: 0.6, values: 0.55, classes: 0.5 };

export class SlidePage {
  constructor(about, id, query, remember) {
    Object.assign(this, { about, id, query, remember });
    this.panes = [];
    this.linked = true;
    this.loaded = new Map();
    this.canTeach = !isExport && about.run !== null;
    this.element = h('div.slide', {}, h('p.wait', {}, 'Opening the slide …'));
    this.chips = h('span', { style: { display: 'flex', gap: '6px' } });
    this.keys = (event) => this.key(event);
    document.addEventListener('keydown', this.keys);
    this.start();
  }

  close() {
    document.removeEventListener('keydown', this.keys);
    this.closed = true;
    this.store?.close();
    this.teach?.close();
    this.panes.forEach((pane) => pane.close());
  }

  async start() {
    let facts;
    try {
      facts = await slides.facts(this.id, this.query.training);
    } catch (error) {
      fill(this.element, h('div.wait', {}, h('h2', {}, this.id), h('p', {}, error.message)));
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
    else if (facts.marks) pane.painters.unshift((context, view) => paintMarks(context, view, facts.marks));
    this.toolbar(pane);
    pane.viewer.addHandler('animation-finish', () => this.keepPlace());
    if (this.query.with) this.openSecond(this.query.with);
    this.restoreLayers();
  }

  addPane(facts, place) {
    const pane = new Pane(facts, `Slide ${facts.id}`);
    add(this.stages, pane.element);
    pane.open(place);
    this.panes.push(pane);
    pane.listeners.pick.push((patch) => this.picked(pane, patch));
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
    Object.assign(this.query, { x: centre.x.toFixed(0), y: centre.y.toFixed(0), s: pane.scale().toPrecision(4), layers: [...pane.layers].map(([key, item]) => `${key}@${item.opacity}`).join('|') });
    this.remember(this.query);
  }

  /* ---- header ---- */

  head() {
    const compare = h('button', { onclick: () => this.toggleSecond(), 'aria-pressed': this.panes.length > 1, title: 'Two slides or two models side by side' }, icon('split'), 'Side by side');
    this.compare = compare;
    const step = (way) => h('button.quiet', { onclick: () => this.neighbour(way), 'aria-label': way < 0 ? 'Previous slide' : 'Next slide', title: way < 0 ? 'Previous slide (,)' : 'Next slide (.)' }, icon(way < 0 ? 'left' : 'right'));
    return [step(-1), step(1), compare, h('button.quiet', { onclick: () => this.help(), 'aria-label': 'Keys', title: 'Keys (?)' }, icon('help'))];
  }

  /** The label and the prediction, beside the name. */
  told() {
    const { row, label } = this.facts;
    const wrong = row.predicted !== undefined && label !== null && String(row.predicted) !== label;
    fill(this.chips, label === null ? null : h('span.chip', { title: 'label' }, label),
      row.predicted === undefined ? null : h(wrong ? 'span.chip.bad' : 'span.chip', { title: 'predicted by models that never saw the patient' }, `predicted ${row.predicted}${row.p ? ` ${row.p.toFixed(2)}` : ''}`));
  }

  async neighbour(way) {
    const found = await get('cohort', { limit: '500', ...this.query.list ? Object.fromEntries(new URLSearchParams(this.query.list)) : {} });
    const at = found.rows.findIndex((row) => row.id === this.id);
    const row = found.rows[at + way];
    if (row) location.hash = slideHref(row.id, { training: this.query.training });
    else notice(way < 0 ? 'This is the first slide' : 'This is the last slide');
  }

  help() {
    const rows = [['Arrows, + and −, 0, Home', 'move, zoom, native pixels, fit (with the slide in focus)'], ['V P R G B E', 'move, point, rectangle, polygon, brush, erase'], ['1 to 9', 'class'], ['Enter', 'with a tool: mark at the centre; polygon: Space sets a corner, Enter closes'], ['Ctrl+Z', 'take the last mark back'], [', and .', 'previous and next slide'], ['L', 'all layers off and on'], ['M', 'more like the chosen patch']];
    const dialog = h('dialog', { onclose: () => dialog.remove() }, h('h2', {}, 'Keys'), h('dl', {}, rows.flatMap(([key, text]) => [h('dt', {}, key), h('dd', {}, text)])), h('form', { method: 'dialog', style: { marginTop: '14px' } }, h('button', {}, 'Close')));
    document.body.append(dialog);
    dialog.showModal();
  }

  key(event) {
    const typing = event.target.closest?.('input[type=text], input[type=search], select, dialog');
    if (typing || event.altKey || !this.facts) return;
    if ((event.ctrlKey || event.metaKey) && event.key === 'z') {
      this.store?.undo();
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const tool = TOOLS.find(([, , key]) => key === event.key.toLowerCase());
    if (tool && this.canTeach) this.chooseTool(tool[0]);
    else if (/^[1-9]$/.test(event.key)) this.teach?.chooseNumber(Number(event.key) - 1);
    else if (event.key === ',' || event.key === '.') this.neighbour(event.key === ',' ? -1 : 1);
    else if (event.key === '?') this.help();
    else if (event.key === 'l') this.toggleLayers();
    else if (event.key === 'm' && this.panes[0].picked) this.openTab('like');
  }

  /* ---- tools and marks ---- */

  toolbar(pane) {
    const tools = this.canTeach ? TOOLS.map(([name, title]) => h('button', { 'data-tool': name, 'aria-pressed': name === 'hand', 'aria-label': title.replace(/ \(.\)$/, ''), title, onclick: () => this.chooseTool(name) }, icon(name))) : [];
    const undo = this.canTeach ? [h('button', { onclick: () => this.store.undo(), 'aria-label': 'Take the last mark back', title: 'Take the last mark back (Ctrl+Z)' }, icon('undo')), h('hr')] : [];
    add(pane.element, h('div.tools', { role: 'toolbar', 'aria-label': 'Tools' }, tools, undo, pane.zoomButtons()));
  }

  startTeaching(pane) {
    this.store = new MarkStore(this.about.run, this.id, () => this.marksChanged());
    this.teach = new TeachPanel({
      id: () => this.id, about: this.about, store: () => this.store, tools: () => this.tools, goTo: (patch) => this.goTo(patch), classified: () => this.classMapArrived(),
    });
    this.tools = new Tools(pane, this.store, () => this.teach.current());
    pane.painters.unshift((context, view) => paintMarks(context, view, this.store.features));
    fill(this.panels.teach, this.teach.element);
  }

  marksChanged() {
    this.teach?.marksChanged();
    this.panes[0]?.redraw();
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
      notice('The class map of this slide is there');
    } catch (error) {
      notice(error.message, true);
    }
  }

  /* ---- tabs ---- */

  tabs() {
    const names = [['layers', 'Layers'], ...(this.canTeach ? [['teach', 'Teach']] : []), ...(isExport || !this.about.encoders.length ? [] : [['like', 'Like this']]), ['about', 'About']];
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
    this.showAbout();
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
    if (key === 'like') this.showLike();
  }

  /* ---- layers ---- */

  showLayerPanel() {
    const boxes = this.panes.map((pane, at) => h('div.group', {},
      this.panes.length > 1 ? h('h2', {}, at ? `Right: ${pane.facts.id}` : `Left: ${pane.facts.id}`) : null,
      pane.facts.layers.length ? this.layerGroups(pane) : h('p.muted', {}, 'Nothing is computed for this slide yet. ', h('br'), command(`wsi-pipeline tile ... --run ${this.about.run}`))));
    fill(this.panels.layers, boxes);
  }

  /** Rows of layers: first the slide's own, then those of each model under its name. */
  layerGroups(pane) {
    const groups = new Map();
    for (const entry of pane.facts.layers) {
      const [what, of] = [entry.key.split(':')[0], entry.key.split(':').slice(1).join(':')];
      const title = !of ? 'Slide' : what === 'classes' ? 'Class maps' : `Model ${of.split('/').reverse().join(' on ')}`;
      const text = !of ? entry.name : what === 'classes' ? of : what;
      groups.set(title, [...(groups.get(title) || []), this.layerRow(pane, entry, text)]);
    }
    return [...groups].map(([title, rows]) => h('div.group', {}, h('h3', {}, title), rows));
  }

  layerRow(pane, entry, text) {
    const on = pane.layers.has(entry.key);
    const more = h('div.more', { hidden: !on });
    const check = h('input', { type: 'checkbox', checked: on, onchange: async () => {
      check.disabled = true;
      try {
        await this.setLayer(pane, entry, check.checked);
        more.hidden = !check.checked;
        if (check.checked) fill(more, this.layerDetails(pane, entry));
        if (!more.isConnected) this.showLayerPanel(); // the panel was rebuilt meanwhile
      } catch (error) {
        check.checked = false;
        notice(error.message, true);
      }
      check.disabled = false;
    } });
    if (on) fill(more, this.layerDetails(pane, entry));
    return h('div.layer', { 'data-layer': entry.key }, h('label', {}, check, h('span', {}, text)), more);
  }

  layerDetails(pane, entry) {
    const item = pane.layers.get(entry.key);
    const answer = item.layer.answer;
    const slider = h('input', { type: 'range', min: 0, max: 1, step: 0.05, value: item.opacity, 'aria-label': `Opacity of ${entry.name}`, oninput: (event) => {
      item.opacity = Number(event.target.value);
      pane.redraw();
      this.keepPlace();
    } });
    const parts = [h('label', {}, 'opacity', slider)];
    if (answer.colours) parts.push(h('div', {}, rampOf(answer), h('div.ends', {}, answer.ends.map((text) => h('span', {}, text)))));
    if (answer.classes) parts.push(h('div.legend', {}, answer.classes.map((one) => h('div', {}, h('span.dot', { style: { background: one.colour } }), one.name, h('span.num', {}, `${(100 * one.fraction).toFixed(0)} %`)))));
    if (answer.ends && entry.key !== 'coverage' && item.layer.n) {
      const strip = (lowest) => sheetOf(item.layer.extremes(6, lowest).map((k) => ({ ...item.layer.patch(k), id: pane.facts.id, k })), (patch) => [item.layer.said(patch.k)], (patch) => pane.goPatch(patch), true);
      parts.push(h('h3', {}, answer.signed ? 'Most for' : 'Strongest'), strip(false), h('h3', {}, answer.signed ? 'Most against' : 'Weakest'), strip(true));
    }
    return parts;
  }

  async setLayer(pane, entry, on, opacity) {
    if (!on) pane.hide(entry.key);
    else pane.show(entry.key, await this.layer(pane.facts.id, entry.key), opacity ?? DEFAULT_OPACITY[entry.kind]);
    this.keepPlace();
  }

  async restoreLayers() {
    const wanted = this.query.layers === undefined ? [['tissue', 0.9]] : this.query.layers.split('|').filter(Boolean).map((text) => [text.slice(0, text.lastIndexOf('@')), Number(text.slice(text.lastIndexOf('@') + 1))]);
    for (const [key, opacity] of wanted) {
      const entry = this.facts.layers.find((layer) => layer.key === key);
      if (entry) await this.setLayer(this.panes[0], entry, true, opacity).catch(() => null);
    }
    if (!this.closed) this.showLayerPanel();
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
      this.query.with = '';
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
      this.take = linkPanes(first, second, () => this.linked && this.panes.length > 1);
      this.take();
    });
    this.query.with = id;
    this.compare?.setAttribute('aria-pressed', 'true');
    const link = h('button', { 'aria-pressed': this.linked, title: 'Pan and zoom both together', onclick: () => {
      this.linked = !this.linked;
      link.setAttribute('aria-pressed', this.linked);
      if (this.linked) this.take?.();
    } }, icon('link'), 'Together');
    const rows = (await get('cohort', { limit: '500' })).rows.filter((row) => row.state !== 'failed');
    add(fill(second.tag), selectOf('', rows.map((row) => [row.id, row.id]), id, (value) => this.openSecond(value)), link);
    second.tag.style.left = '12px';
    second.tag.firstChild.firstChild.nextSibling?.setAttribute('aria-label', 'Slide at the right');
    this.showLayerPanel();
    this.remember(this.query);
  }

  /* ---- more like this ---- */

  picked(pane, patch) {
    this.likeOf = { id: pane.facts.id, patch };
    if (this.panels.like && !this.panels.like.hidden) this.showLike();
  }

  goTo(patch) {
    if (patch.id === this.id) this.panes[0].goPatch(patch);
    else location.hash = slideHref(patch.id, { training: this.query.training, tab: this.query.tab, x: patch.x + patch.side / 2, y: patch.y + patch.side / 2, s: Math.min(2, 150 / patch.side), layers: this.query.layers });
  }

  async showLike() {
    const panel = this.panels.like;
    const encoders = this.about.encoders;
    this.encoder ||= encoders.find((name) => name.startsWith('pathotune')) || encoders[0];
    const chosen = this.likeOf;
    const top = h('div.group', {}, selectOf('Features of', encoders.map((name) => [name, name]), this.encoder, (value) => { this.encoder = value; this.showLike(); }),
      chosen ? h('label.small', { style: { display: 'flex', gap: '6px', alignItems: 'center' } }, h('input', { type: 'checkbox', checked: this.others, onchange: (event) => { this.others = event.target.checked; this.showLike(); } }), 'other slides only') : h('p.muted', {}, 'Click a patch on the slide to see the patches of the cohort that are most like it.'));
    const sheet = h('div.group');
    const near = h('div.group');
    fill(panel, top, sheet, near);
    const version = (this.likeVersion = (this.likeVersion || 0) + 1);
    try {
      if (chosen) {
        fill(sheet, h('p.muted.small', {}, 'Searching …'));
        const found = await slides.similar(chosen.id, { row: String(chosen.patch.row), encoder: this.encoder, count: '24', others: this.others ? '1' : '' });
        if (version !== this.likeVersion) return;
        fill(sheet, h('h3', {}, 'Patches like the chosen one'), sheetOf([{ ...chosen.patch, id: chosen.id, own: true }, ...found], (patch) => [patch.id, patch.own ? 'the chosen one' : `distance ${patch.distance.toFixed(2)}`, patch.label].filter(Boolean), (patch) => this.goTo(patch)));
      }
      const slidesNear = await slides.similar(this.id, { encoder: this.encoder, count: '8' });
      if (version !== this.likeVersion) return;
      fill(near, h('h3', {}, 'Slides like this one'), h('div.rows', {}, slidesNear.map((row) => h('a', { href: slideHref(row.id, { training: this.query.training }) }, h('img', { src: thumbnailUrl(row.id, 96), alt: '' }), h('span', {}, row.id, h('br'), h('span.muted.small', {}, [row.label, `distance ${row.distance.toFixed(2)}`].filter(Boolean).join(' · ')))))));
    } catch (error) {
      if (version === this.likeVersion) fill(sheet, h('p.muted', {}, error.message));
    }
  }

  /* ---- facts ---- */

  showAbout() {
    const { facts } = this;
    const row = facts.row;
    const size = facts.mpp ? `${number((facts.width * facts.mpp) / 1000, 1)} × ${number((facts.height * facts.mpp) / 1000, 1)} mm` : null;
    const entries = [['file', facts.file], ['patient', facts.patient], ['label', facts.label], ['site', facts.site], ['size', `${number(facts.width)} × ${number(facts.height)} px`], ['', size], ['resolution', facts.mpp ? `${facts.mpp.toPrecision(4)} µm per pixel` : 'not stated'], ['scanner', facts.vendor], ['patches', number(row.patches)], ['tissue', row.tissue_mm2 ? `${number(row.tissue_mm2, 1)} mm²` : null],
      ['predicted', row.predicted === undefined ? null : `${row.predicted}${row.p ? ` (${row.p.toFixed(2)})` : ''}`], ['fold', row.fold], ['note', row.note]];
    const list = h('dl', {}, entries.filter(([, value]) => value !== null && value !== undefined && value !== '').flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, String(value))]));
    const pictures = isExport ? null : h('div.group', {}, h('h3', {}, 'Label and overview of the glass'), h('p.small.muted', {}, 'They may show names. They are read only when you ask.'), h('button', { onclick: (event) => this.showAssociated(event.target.parentNode) }, 'Which are there?'));
    const run = this.about.run ? h('div.group', {}, h('h3', {}, 'In the terminal'), command(`wsi-pipeline view --run ${this.about.run}`), command(`wsi-pipeline view --run ${this.about.run} --only ${this.id} --export ${this.id}-view`)) : null;
    fill(this.panels.about, list, pictures, isExport ? null : run);
  }

  async showAssociated(box) {
    try {
      const names = await slides.associated(this.id);
      const open = (name) => {
        const dialog = h('dialog', { onclose: () => dialog.remove() }, h('h2', {}, name), h('img', { src: associatedUrl(this.id, name), alt: name }), h('form', { method: 'dialog' }, h('button', {}, 'Close')));
        document.body.append(dialog);
        dialog.showModal();
      };
      box.querySelector('button').replaceWith(h('div', { style: { display: 'flex', gap: '6px', flexWrap: 'wrap' } }, names.length ? names.map((name) => h('button', { onclick: () => open(name) }, `Show ${name}`)) : h('span.muted', {}, 'none')));
    } catch (error) {
      notice(error.message, true);
    }
  }
}
