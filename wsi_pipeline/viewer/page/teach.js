/* The teaching panel: classes, what is marked, tuning and its progress, what to mark next. */
import { add, command, counted, fill, h, later, notice, selectOf } from './dom.js';
import { classOf } from './marking.js';
import { sheetOf } from './sheet.js';
import { get, post } from './source.js';

const POLL_JOB = 1500;
const PALETTE = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#f0e442', '#56b4e9', '#e69f00', '#003f62', '#752f00', '#00573f'];

export class TeachPanel {
  constructor({ id, about, store, tools, goTo, classified }) {
    Object.assign(this, { id, about, store, tools, goTo, classified });
    this.colours = new Map();
    this.chosen = null;
    this.list = h('div.classes', { role: 'radiogroup', 'aria-label': 'Class to mark' });
    this.state = h('span.saving', { role: 'status' });
    this.summary = h('div.group');
    this.jobBox = h('div.group');
    this.nextBox = h('div.group');
    this.size = h('input', { type: 'range', min: 6, max: 90, value: 24, 'aria-label': 'Brush size', oninput: (event) => { tools().radius = Number(event.target.value); } });
    const name = h('input', { type: 'text', placeholder: 'new class, e.g. tumour', maxLength: 80, 'aria-label': 'New class' });
    const form = h('form.inline', { onsubmit: (event) => { event.preventDefault(); this.addClass(name.value); name.value = ''; } }, name, h('button', { type: 'submit' }, 'Add'));
    this.element = h('div.group', { style: { gap: '16px' } },
      h('div.group', {}, h('h3', {}, 'Classes', this.state), this.list, form,
        h('label.small.muted', { style: { display: 'flex', gap: '8px', alignItems: 'center' } }, 'Brush', this.size)),
      this.summary, this.jobBox, this.nextBox);
    this.refresh = later(() => this.load(), 350);
    this.load();
    this.watch();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
  }

  current() {
    const colour = this.colours.get(this.chosen);
    return colour ? { name: this.chosen, colour } : null;
  }

  addClass(text) {
    const name = text.trim();
    if (!name) return;
    if (!this.colours.has(name)) this.colours.set(name, PALETTE.find((colour) => ![...this.colours.values()].includes(colour)) || PALETTE[0]);
    this.choose(name);
  }

  choose(name) {
    this.chosen = name;
    this.showClasses();
  }

  chooseNumber(k) {
    const name = [...this.colours.keys()][k];
    if (name) this.choose(name);
  }

  /** Called when the marks have changed, here or in another window. */
  marksChanged() {
    const said = { saved: ['saved', false], waiting: ['saving …', false], failing: [`Not saved yet: ${this.store().why || 'the server is not responding'}. Retrying …`, true] }[this.store().state];
    this.state.textContent = this.store().features.length || said[1] ? said[0] : '';
    this.state.classList.toggle('bad', said[1]);
    this.showClasses();
    this.refresh();
  }

  showClasses() {
    const counts = new Map();
    for (const feature of this.store().features) {
      const name = classOf(feature);
      counts.set(name, (counts.get(name) || 0) + 1);
      const colour = feature.properties?.classification?.color;
      if (name && !this.colours.has(name) && Array.isArray(colour)) this.colours.set(name, `#${colour.map((value) => value.toString(16).padStart(2, '0')).join('')}`);
    }
    if (!this.chosen && this.colours.size) this.chosen = this.colours.keys().next().value;
    fill(this.list, [...this.colours].map(([name, colour], k) => h('label', {},
      h('input', { type: 'radio', name: 'class', checked: name === this.chosen, onchange: () => this.choose(name) }),
      h('span.dot', { style: { background: colour } }), name, h('span.num', {}, counts.get(name) ? counted(counts.get(name), 'mark') : ''), k < 9 ? h('kbd', {}, String(k + 1)) : null)));
    if (!this.colours.size) add(this.list, h('p.muted.small', {}, 'Add the classes you want to distinguish, for example tumour and stroma. Then choose a tool on the left and mark examples of each.'));
  }

  async load() {
    if (this.closed) return;
    let found;
    try {
      found = await get('teaching');
    } catch {
      return;
    }
    for (const [name, colour] of Object.entries(found.colours)) if (!this.colours.has(name)) this.colours.set(name, colour);
    this.showClasses();
    const rows = Object.entries(found.classes).map(([name, count]) => h('div', {}, h('span.dot', { style: { background: this.colours.get(name) || '#888' } }), name,
      h('span.num', {}, `${counted(count.patches, 'patch')}, ${counted(count.slides, 'slide')}, ${counted(count.patients, 'patient')}`)));
    const run = h('button.main', { onclick: () => this.tune(), disabled: Boolean(found.missing) || this.running }, 'Tune on these marks');
    this.run = run;
    fill(this.summary, h('h3', {}, 'Marked in the cohort'), rows.length ? h('div.legend', {}, rows) : null,
      found.missing ? h('p.small.muted', {}, found.missing) : null, found.notes.map((note) => h('p.note', {}, note)), run,
      rows.length > 1 ? h('details', {}, h('summary.small.muted', {}, 'Commands'), h('p.small.muted', {}, 'The button first writes annotations/patches.csv.'), found.commands.map((text) => command(text))) : null);
  }

  async tune() {
    this.run.disabled = true;
    try {
      await post('tune', { slide: this.id() });
      notice('Tuning started. It continues if you close this page.');
    } catch (error) {
      notice(error.message, true);
    }
    this.watch();
  }

  /** Show the newest job, and its progress while it runs. */
  async watch() {
    clearTimeout(this.timer);
    if (this.closed) return;
    try {
      const [job] = await get('jobs');
      if (job) await this.showJob(await get(`jobs/${job.number}`));
    } catch { /* The server is away. */ }
    if (this.closed) return;
    this.timer = setTimeout(() => this.watch(), this.running ? POLL_JOB : 8000);
  }

  async showJob(job) {
    const was = this.running;
    const step = this.step;
    this.running = job.state === 'running';
    this.step = job.step;
    const told = { running: job.commands[job.step]?.split(' ')[1] === 'classify' ? 'classifying' : 'tuning', done: 'finished', failed: 'failed', stopped: 'stopped' }[job.state];
    const bar = h(job.progress === null || job.progress === undefined ? 'div.progress.waiting' : 'div.progress', { role: 'progressbar', 'aria-label': job.title, 'aria-valuenow': Math.round(100 * (job.progress || 0)) }, h('i', { style: job.progress ? { width: `${100 * job.progress}%` } : {} }));
    const open = this.jobBox.querySelector('details')?.open;
    fill(this.jobBox, h('h3', {}, 'Last job', this.running ? h('button.quiet', { onclick: () => post(`jobs/${job.number}/stop`, {}).then(() => this.watch()) }, 'Stop') : null),
      h('div', {}, `${job.title}: `, h(job.state === 'failed' ? 'span.chip.bad' : job.state === 'done' ? 'span.chip.good' : 'span.chip', {}, told), this.running ? h('span.muted.small', {}, ` step ${job.step + 1} of ${job.commands.length}`) : null),
      this.running ? bar : null,
      h('details', { open: open || job.state === 'failed' }, h('summary.small.muted', {}, 'Output'), h('pre.log', { tabindex: 0 }, job.log.join('\n')), job.commands.map((text) => command(text))));
    const classifiedHere = (step !== undefined && job.step > step) || (was && !this.running);
    if (was !== undefined && classifiedHere) this.classified();
    if (was && !this.running) this.load();
    if (this.shownNext !== `${job.number} ${job.state}` && job.state === 'done') {
      this.shownNext = `${job.number} ${job.state}`;
      this.next();
    }
  }

  async next() {
    try {
      const found = await get('next-to-mark', { count: 18, model: this.about.tuned });
      fill(this.nextBox, h('h3', {}, 'Next to mark'), h('p.small.muted', {}, 'The tuned model is least certain about these patches, so marks here help it most.'), found.note ? h('p.note', {}, found.note) : null,
        sheetOf(found.patches, (patch) => [patch.id, ...patch.between], (patch) => this.goTo(patch)), command(found.command));
    } catch { /* Nothing is classified yet. */ }
  }
}

/** Choose the model whose classes to show, if there are several classifications. */
export function modelChoice(label, models, value, changed) {
  return selectOf(label, models.map((name) => [name, name]), value, changed);
}
