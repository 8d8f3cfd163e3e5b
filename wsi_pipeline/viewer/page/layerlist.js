/* The lists of layers beside a slide: one of each pane, with opacity, legend and the patches to go to. */
import { command, fill, h, notice } from './dom.js';
import { rampOf } from './layers.js';
import { marksRow } from './panels.js';
import { sheetOf } from './sheet.js';

const SIDES = ['Left', 'Right'];

/** The lists of a page; of two panes the one that was used last, or both where there is room for two columns. */
export function layerLists(page) {
  const lists = page.panes.map((pane, at) => h(at === page.listed ? 'div.list.on' : 'div.list', { id: `layers-${at}` },
    page.panes.length > 1 ? h('h2', {}, nameOf(pane, at)) : null,
    at === 0 ? marksRow(page) : null,
    pane.facts.layers.length ? layerGroups(page, pane) : h('p.muted', {}, 'Nothing has been computed for this slide yet. ', h('br'), command(`wsi-pipeline tile ... --run ${page.about.run}`))));
  if (lists.length < 2) return lists;
  const choice = page.panes.map((pane, at) => h('button', { 'aria-pressed': at === page.listed, 'aria-controls': `layers-${at}`, onclick: () => page.listLayersOf(at, true) }, nameOf(pane, at)));
  return [h('div.which', { role: 'group', 'aria-label': 'Layers of' }, choice), h('div.lists', {}, lists)];
}

function nameOf(pane, at) {
  return `${SIDES[at]}: ${pane.facts.id}`;
}

/** Rows of layers: first the slide's own, then those of each model under its name. */
function layerGroups(page, pane) {
  const groups = new Map();
  for (const entry of pane.facts.layers) {
    const [what, of] = [entry.key.split(':')[0], entry.key.split(':').slice(1).join(':')];
    const title = what === 'quality' ? 'Quality' : !of ? 'Slide' : what === 'classes' ? 'Class maps' : `Model ${of.split('/').reverse().join(' on ')}`;
    const text = what === 'quality' ? of || 'artefacts' : !of ? entry.name : what === 'classes' ? of : what;
    groups.set(title, [...(groups.get(title) || []), layerRow(page, pane, entry, text)]);
  }
  return [...groups].map(([title, rows]) => h('div.group', {}, h('h3', {}, title), rows));
}

function layerRow(page, pane, entry, text) {
  const on = pane.layers.has(entry.key);
  const more = h('div.more', { hidden: !on });
  const busy = (now) => check.setAttribute('aria-busy', now); // not disabled: that would lose the focus
  const waits = (event) => check.getAttribute('aria-busy') === 'true' && event.preventDefault();
  const check = h('input', { type: 'checkbox', checked: on, 'aria-busy': false, onclick: waits, onchange: async () => {
    busy(true);
    try {
      await page.setLayer(pane, entry, check.checked);
      more.hidden = !check.checked;
      if (check.checked) fill(more, layerDetails(page, pane, entry));
      if (!more.isConnected) page.showLayerPanel(); // the panel was rebuilt meanwhile
    } catch (error) {
      check.checked = false;
      notice(error.message, true);
    }
    busy(false);
  } });
  if (on) fill(more, layerDetails(page, pane, entry));
  return h('div.layer', { 'data-layer': entry.key }, h('label', {}, check, h('span', {}, text)), more);
}

function layerDetails(page, pane, entry) {
  const item = pane.layers.get(entry.key);
  const answer = item.layer.answer;
  const slider = h('input', { type: 'range', min: 0, max: 1, step: 0.05, value: item.opacity, 'aria-label': `Opacity of ${entry.name}`, oninput: (event) => {
    item.opacity = Number(event.target.value);
    pane.redraw();
    page.keepPlace();
  } });
  const parts = [h('label', {}, 'opacity', slider)];
  if (answer.colours) parts.push(h('div', {}, rampOf(answer), h('div.ends', {}, answer.ends.map((text) => h('span', {}, text)))));
  if (answer.classes) parts.push(h('div.legend', {}, answer.classes.map((one) => h('div', {}, h('span.dot', { style: { background: one.colour } }), one.name, h('span.num', {}, one.count ?? `${(100 * one.fraction).toFixed(0)} %`)))));
  if (answer.note) parts.push(h('p.note', {}, answer.note));
  if (answer.ends && entry.key !== 'coverage' && item.layer.n) {
    const strip = (lowest) => sheetOf(item.layer.extremes(6, lowest).map((k) => ({ ...item.layer.patch(k), id: pane.facts.id, k })), (patch) => [item.layer.said(patch.k)], (patch) => page.goToIn(pane, patch), true);
    parts.push(h('h3', {}, answer.signed ? 'Strongest for' : 'Strongest'), strip(false), h('h3', {}, answer.signed ? 'Strongest against' : 'Weakest'), strip(true));
  }
  return parts;
}
