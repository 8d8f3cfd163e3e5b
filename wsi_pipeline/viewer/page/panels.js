/* Two panels beside a slide: similar patches and slides, and what is known about the slide. */
import { command, counted, fill, h, later, notice, number, selectOf } from './dom.js';
import { slideHref } from './cohort.js';
import { classOf, colourOf } from './marking.js';
import { sheetOf } from './sheet.js';
import { associatedUrl, get, isExport, slides, thumbnailUrl } from './source.js';

/** Fills `panel` with the patches and slides most similar to those of `page`; returns the function that does it again. */
export function similarPanel(page, panel) {
  const { encoders } = page.about;
  let encoder = encoders.find((name) => name.startsWith('pathotune')) || encoders[0];
  let others = false;
  let version = 0;

  async function patches(sheet, { id, patch }, mine) {
    const wait = h('p.muted.small', {}, 'Searching …');
    fill(sheet, wait);
    setTimeout(() => { wait.textContent = 'Searching … The first search of a large cohort reads all features, which takes a while.'; }, 4000);
    const found = await slides.similar(id, { row: String(patch.row), encoder, count: '24', others: others ? '1' : '' });
    if (mine !== version) return;
    const said = (one) => [one.id, one.own ? 'selected' : `distance ${one.distance.toFixed(2)}`, one.label].filter(Boolean);
    fill(sheet, h('h3', {}, 'Most similar patches'), sheetOf([{ ...patch, id, own: true }, ...found.patches], said, (one) => page.goTo(one)),
      h('p.small.muted', {}, found.how), command(found.command));
  }

  async function nearSlides(near, mine) {
    const found = await slides.similar(page.id, { encoder, count: '8' });
    if (mine !== version) return;
    const row = (one) => h('a', { href: slideHref(one.id, { training: page.query.training }) }, h('img', { src: thumbnailUrl(one.id, 96), alt: '' }),
      h('span', {}, one.id, h('br'), h('span.muted.small', {}, [one.label, `distance ${one.distance.toFixed(2)}`].filter(Boolean).join(' · '))));
    fill(near, h('h3', {}, 'Most similar slides'), h('div.rows', {}, found.slides.map(row)), found.commands.map((text) => command(text)));
  }

  async function show() {
    const chosen = page.likeOf;
    const choice = selectOf('Encoder', encoders.map((name) => [name, name]), encoder, (value) => { encoder = value; show(); });
    const box = h('input', { type: 'checkbox', checked: others, onchange: (event) => { others = event.target.checked; show(); } });
    const top = h('div.group', {}, choice, chosen
      ? h('label.small', { style: { display: 'flex', gap: '6px', alignItems: 'center' } }, box, 'other slides only')
      : h('p.muted', {}, 'Click a patch to find the most similar patches in the cohort.'));
    const [sheet, near] = [h('div.group'), h('div.group')];
    fill(panel, top, sheet, near);
    version += 1;
    const mine = version;
    try {
      if (chosen) await patches(sheet, chosen, mine);
      if (mine === version) await nearSlides(near, mine);
    } catch (error) {
      if (mine === version) fill(chosen && !sheet.querySelector('button') ? sheet : near, h('p.muted', {}, error.message));
    }
  }
  return show;
}

/** The row of the marks in the list of layers, or null without marks: on or off, opacity, classes. */
export function marksRow(page) {
  const counts = new Map();
  for (const feature of page.features) {
    const name = classOf(feature) || 'without class';
    counts.set(name, { colour: colourOf(feature), count: (counts.get(name)?.count || 0) + 1 });
  }
  if (!counts.size) return null;
  const redraw = () => page.panes.forEach((pane) => pane.redraw());
  const slider = h('input', { type: 'range', min: 0, max: 1, step: 0.05, value: page.marks.opacity, 'aria-label': 'Opacity of annotations', oninput: (event) => { page.marks.opacity = Number(event.target.value); redraw(); } });
  const legend = [...counts].map(([name, { colour, count }]) => h('div', {}, h('span.dot', { style: { background: colour } }), name, h('span.num', {}, counted(count, 'mark'))));
  const more = h('div.more', { hidden: !page.marks.shown }, h('label', {}, 'opacity', slider), h('div.legend', {}, legend));
  const check = h('input', { type: 'checkbox', checked: page.marks.shown, onchange: () => {
    page.marks.shown = check.checked;
    more.hidden = !check.checked;
    redraw();
  } });
  return h('div.layer', { 'data-layer': 'annotations' }, h('label', {}, check, h('span', {}, 'annotations')), more);
}

/** Fills `panel` with the facts of a slide, its label images on request, and commands. */
export function showAbout(page, panel) {
  const { facts } = page;
  const { row } = facts;
  const size = facts.mpp ? `${number((facts.width * facts.mpp) / 1000, 1)} × ${number((facts.height * facts.mpp) / 1000, 1)} mm` : null;
  const entries = [
    ['file', facts.file], ['patient', facts.patient], ['label', facts.label], ['site', facts.site], ['size', `${number(facts.width)} × ${number(facts.height)} px`], ['', size],
    ['resolution', facts.mpp ? `${facts.mpp.toPrecision(4)} µm per pixel` : 'not stated'], ['scanner', facts.vendor], ['patches', number(row.patches)],
    ['tissue', row.tissue_mm2 ? `${number(row.tissue_mm2, 1)} mm²` : null],
    ['predicted', row.predicted === undefined ? null : `${row.predicted}${row.p ? ` (${row.p.toFixed(2)})` : ''}`], ['fold', row.fold], ['note', row.note],
  ];
  const there = entries.filter(([, value]) => value !== null && value !== undefined && value !== '');
  const list = h('dl', {}, there.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, String(value))]));
  const pictures = isExport ? null : h('div.group', {}, h('h3', {}, 'Label and macro images'), h('p.small.muted', {}, 'They may show patient names, so they are read only when you ask for them.'),
    h('button', { onclick: (event) => showAssociated(page.id, event.target) }, 'List images'));
  const commands = page.about.run && !isExport ? h('div.group', {}, h('h3', {}, 'Commands'), h('p.small.muted', {}, 'Open this run'), command(page.about.commands.view),
    h('p.small.muted', {}, 'Export this slide to a folder'), command(facts.export_command)) : null;
  fill(panel, list, pictures, commands);
}

async function showAssociated(id, button) {
  const open = (name) => {
    const dialog = h('dialog', { onclose: () => dialog.remove() }, h('h2', {}, name), h('img', { src: associatedUrl(id, name), alt: name }), h('form', { method: 'dialog' }, h('button', {}, 'Close')));
    document.body.append(dialog);
    dialog.showModal();
  };
  try {
    const names = await slides.associated(id);
    const buttons = names.map((name) => h('button', { onclick: () => open(name) }, `Show ${name}`));
    button.replaceWith(h('div', { style: { display: 'flex', gap: '6px', flexWrap: 'wrap' } }, names.length ? buttons : h('span.muted', {}, 'none')));
  } catch (error) {
    notice(error.message, true);
  }
}

/** A field for the slide on the right, with suggestions for what is typed; `chosen` is called with another id. */
export function slideChooser(id, chosen) {
  const names = h('datalist', { id: 'slides-to-compare' });
  const suggest = async (text) => {
    const found = await get('cohort', { text, limit: '50' }).catch(() => ({ rows: [] }));
    fill(names, found.rows.filter((row) => row.state !== 'failed').map((row) => h('option', { value: row.id })));
  };
  const field = h('input', { type: 'text', value: id, list: names.id, 'aria-label': 'Slide on the right', oninput: later(() => suggest(field.value), 200),
    onfocus: () => { field.select(); suggest(''); }, onchange: () => { if (field.value && field.value !== id) chosen(field.value); } });
  return h('span', {}, field, names);
}
