/* The cohort: cards of slides, created only while in view. Rows come from the server in pages. */
import { add, counted, fill, h, later, notice, number, selectOf } from './dom.js';
import { get, isExport, thumbnailUrl } from './source.js';

const PAGE = 120;
const HEIGHT = 250;
const WIDTH = 216;
const GAP = 12;
const SORT_WORDS = {
  order: 'table order', error: 'error', doubt: 'model uncertainty', spread: 'spread over repeats', distance: 'distance from training slides', patches: 'number of patches', id: 'name',
};
const STATES = [['', 'all'], ['done', 'done'], ['failed', 'failed'], ['empty', 'no tissue'], ['pending', 'not processed'], ['wrong', 'misclassified'], ['marked', 'marked']];

export class CohortPage {
  constructor(about, query, remember) {
    this.about = about;
    this.remember = remember;
    this.query = { training: about.trainings[0] || '', sort: 'order', down: '', text: '', label: '', site: '', fold: '', state: '', ...query };
    if (!about.trainings.includes(this.query.training)) this.query.training = about.trainings[0] || ''; // an old address
    this.count = h('span.count.num', { role: 'status' });
    this.cards = h('div.cards');
    this.scroll = h('div.scroll', { tabindex: 0, 'aria-label': 'Slides' }, this.cards);
    this.note = h('p.note', { hidden: true, role: 'status' });
    this.element = h('div.cohort', {}, this.filters(), this.note, this.scroll);
    this.scroll.addEventListener('scroll', () => this.draw(), { passive: true });
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.scroll);
    this.reset();
  }

  close() {
    this.resized.disconnect();
  }

  filters() {
    const set = (key) => (value) => this.change({ [key]: value });
    const choices = (key, names) => (names.length > 1 ? selectOf(key, [['', 'all'], ...names.map((name) => [name, name])], this.query[key], set(key)) : null);
    const direction = h('button', { onclick: () => { this.change({ down: this.query.down === '1' ? '' : '1' }); direction.textContent = this.query.down === '1' ? '↓' : '↑'; }, 'aria-label': 'Reverse order', title: 'Reverse order' }, this.query.down === '1' ? '↓' : '↑');
    const typed = later((event) => this.change({ text: event.target.value }), 200);
    const search = h('label', {}, 'search', h('input', { type: 'search', value: this.query.text, placeholder: 'name, patient, note', oninput: typed }));
    const model = this.about.trainings.length ? selectOf('model', this.about.trainings.map((name) => [name, name]), this.query.training, set('training')) : null;
    const sortable = this.about.sorts.filter((name) => this.about.trainings.length || ['order', 'patches', 'id'].includes(name)).filter((name) => !isExport || name !== 'distance');
    const sort = selectOf('sort by', sortable.map((name) => [name, SORT_WORDS[name]]), this.query.sort, (value) => {
      const down = ['error', 'doubt', 'spread', 'distance', 'patches'].includes(value) ? '1' : '';
      direction.textContent = down ? '↓' : '↑';
      this.change({ sort: value, down });
    });
    return h('div.filters', { role: 'search' }, search, choices('label', this.about.labels), choices('site', this.about.sites), choices('fold', this.about.folds),
      selectOf('state', STATES, this.query.state, set('state')), model, sort, direction, this.count);
  }

  change(part) {
    Object.assign(this.query, part);
    this.remember(this.query);
    this.reset();
  }

  reset() {
    this.pages = new Map();
    this.asked = new Set();
    this.shown = new Map();
    this.matched = null;
    this.scroll.scrollTop = 0;
    fill(this.cards);
    this.version = (this.version || 0) + 1;
    this.need(0);
  }

  async need(page) {
    if (this.asked.has(page)) return;
    this.asked.add(page);
    const version = this.version;
    try {
      const found = await get('cohort', { ...this.query, offset: String(page * PAGE), limit: String(PAGE) });
      if (version !== this.version) return;
      this.pages.set(page, found.rows);
      this.matched = found.matched;
      this.note.textContent = found.note || '';
      this.note.hidden = !found.note;
      this.count.textContent = found.matched === found.total ? counted(found.total, 'slide') : `${number(found.matched)} of ${counted(found.total, 'slide')}`;
      this.draw(true);
    } catch (error) {
      this.asked.delete(page);
      notice(error.message, true);
    }
  }

  /** Create the cards in view and remove the others. */
  draw(fresh = false) {
    if (this.matched === null) return;
    const width = this.scroll.clientWidth - 2 * GAP;
    const columns = Math.max(1, Math.floor((width + GAP) / (WIDTH + GAP)));
    const across = (width - (columns - 1) * GAP) / columns;
    const rows = Math.ceil(this.matched / columns);
    this.cards.style.height = `${rows * (HEIGHT + GAP) + GAP}px`;
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / (HEIGHT + GAP)) - 1);
    const last = Math.min(rows, Math.ceil((this.scroll.scrollTop + this.scroll.clientHeight) / (HEIGHT + GAP)) + 1);
    const wanted = new Set();
    for (let at = first * columns; at < Math.min(this.matched, last * columns); at += 1) {
      wanted.add(at);
      const page = Math.floor(at / PAGE);
      const row = this.pages.get(page)?.[at % PAGE];
      if (!row) this.need(page);
      let card = this.shown.get(at);
      if (!card || (card.bare && row && fresh)) {
        card?.element.remove();
        card = { element: row ? cardOf(row, this.query) : h('div.card.bones', { 'aria-hidden': 'true' }), bare: !row };
        this.shown.set(at, card);
        const after = Math.min(...[...this.shown.keys()].filter((other) => other > at));
        this.cards.insertBefore(card.element, this.shown.get(after)?.element || null); // Tab follows the order shown
      }
      Object.assign(card.element.style, { left: `${GAP + (at % columns) * (across + GAP)}px`, top: `${GAP + Math.floor(at / columns) * (HEIGHT + GAP)}px`, width: `${across}px`, height: `${HEIGHT}px` });
    }
    for (const [at, card] of this.shown) {
      if (wanted.has(at)) continue;
      card.element.remove();
      this.shown.delete(at);
    }
    if (!this.matched) fill(this.cards, h('p.wait', {}, 'No slides match.'));
  }
}

export function slideHref(id, query = {}) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return `#/slides/${encodeURIComponent(id)}${words.size ? `?${words}` : ''}`;
}

/** `sort`: what the list is sorted by; its value is on the card. */
function cardOf(row, { training, sort }) {
  const bad = row.state === 'failed';
  const wrong = row.predicted !== undefined && row.label !== null && String(row.predicted) !== row.label;
  const state = { failed: 'failed', empty: 'no tissue', pending: 'not processed' }[row.state];
  const picture = bad ? h('span.muted.small', {}, 'no image') : h('img', { src: thumbnailUrl(row.id, 320, row.version), loading: 'lazy', decoding: 'async', alt: '' });
  if (!bad) picture.addEventListener('error', () => picture.replaceWith(h('span.muted.small', {}, 'no image')));
  const spread = row.spread ? h('b', { style: { left: `${100 * Math.max(0, row.p - row.spread)}%`, width: `${100 * Math.min(1, 2 * row.spread)}%` } }) : null;
  const chance = typeof row.p === 'number'
    ? [h(wrong ? 'div.bar.bad' : 'div.bar', { title: `${row.predicted} ${row.p.toFixed(2)}` }, h('i', { style: { width: `${100 * row.p}%` } }), spread), h('span.num', {}, row.p.toFixed(2))] : null;
  const predicted = row.predicted === undefined ? null
    : h('div.line', {}, h(wrong ? 'span.chip.bad' : 'span.chip', { title: wrong ? 'misclassified' : 'predicted' }, String(row.predicted)), chance);
  const sorted = { error: 'error', doubt: 'uncertainty' }[sort];
  const extra = [sorted && typeof row[sort] === 'number' ? `${sorted} ${row[sort].toFixed(2)}` : null, row.patches === null || row.patches === undefined ? null : counted(row.patches, 'patch'),
    row.distance === undefined || row.distance === null ? null : `distance ${row.distance.toFixed(2)}`, row.spread ? `± ${row.spread.toFixed(2)}` : null, row.marks ? counted(row.marks, 'mark') : null];
  const note = row.note ? h('div.line.why', { title: row.note }, h(bad ? 'span.chip.bad' : 'span.chip.warn', {}, state || 'note'), h('span', {}, row.note)) : state ? h('div.line', {}, h('span.chip.warn', {}, state)) : null;
  return h('a.card', { href: slideHref(row.id, { training }), title: row.note || row.id },
    h('div.picture', {}, picture),
    h('div.facts', {}, h('div.title', {}, h('span', {}, row.id), row.label === null ? null : h('span.chip', {}, row.label)),
      h('div.line', {}, [row.patient === row.id ? null : row.patient, row.site].filter(Boolean).join(' · ')),
      predicted, note || h('div.line.num', {}, extra.filter(Boolean).join(' · '))));
}
