/* The marks of a slide: every stroke is sent until the server has it, and survives a reload until then. */
import { notice } from './dom.js';
import { slides } from './source.js';

const RETRY = 1500;
const POLL = 4000;
const AT_ONCE = 100;

/** An id for a mark; pages that are not served from this machine have no crypto.randomUUID. */
export function newId() {
  return crypto.randomUUID ? crypto.randomUUID() : `m-${Date.now()}-${Math.random().toString(16).slice(2)}`;
}

/** The marks of one slide as on the server, and the changes not yet sent. */
export class MarkStore {
  constructor(id, changed) {
    this.id = id;
    this.prefix = `wsi-pipeline mark ${location.pathname} ${id} `; // the path holds the token of the run
    this.changed = changed;
    this.revision = -1;
    this.stored = new Map();
    this.waiting = this.kept();
    this.state = this.waiting.length ? 'waiting' : 'saved';
    this.done = [];
    this.most = AT_ONCE;
    this.timer = setInterval(() => this.poll(), POLL);
    this.load();
  }

  close() {
    clearInterval(this.timer);
    this.closed = true;
  }

  get features() {
    const all = new Map(this.stored);
    for (const { change } of this.waiting) {
      if (change.op === 'delete') all.delete(change.id);
      else all.set(change.feature.id, change.feature);
    }
    return [...all.values()];
  }

  put(feature) {
    this.done.push({ op: 'delete', id: feature.id });
    this.queue({ op: 'put', feature });
  }

  remove(id) {
    const feature = this.features.find((one) => one.id === id);
    if (feature) this.done.push({ op: 'put', feature });
    this.queue({ op: 'delete', id });
  }

  /** Undo the last mark, or the last deletion, made in this window. */
  undo() {
    const change = this.done.pop();
    if (change) this.queue(change);
  }

  queue(change) {
    const item = { key: `${this.prefix}${String(Date.now()).padStart(15, '0')} ${newId()}`, change };
    this.waiting.push(item);
    this.keep(item);
    this.changed();
    this.send();
  }

  async load() {
    try {
      this.take(await slides.marks(this.id));
    } catch (error) {
      if (!this.closed) notice(error.message, true);
    }
    if (this.waiting.length) this.send();
  }

  async poll() {
    if (document.hidden || this.sending || this.waiting.length) return;
    try {
      this.take(await slides.marks(this.id, this.revision));
    } catch { /* The server is away; the next stroke says so. */ }
  }

  async send() {
    if (this.sending || this.closed || !this.waiting.length) return;
    this.sending = true;
    const batch = this.waiting.slice(0, this.most);
    try {
      const answer = await slides.change(this.id, batch.map((item) => item.change));
      this.forget(batch);
      this.most = AT_ONCE;
      this.state = this.waiting.length ? 'waiting' : 'saved';
      this.take(answer);
    } catch (error) {
      if (error.status === 400 && batch.length > 1) this.most = 1; // one of them is invalid: send each alone
      else if (error.status === 400) { // sending it again would not help
        this.forget(batch);
        notice(error.message, true);
      } else {
        this.state = 'failing';
        this.why = error.status ? error.message : '';
      }
      this.changed();
    }
    this.sending = false;
    if (this.waiting.length) setTimeout(() => this.send(), this.state === 'failing' ? RETRY : 0);
  }

  take(answer) {
    if (this.closed || !answer.features) return;
    this.revision = answer.revision;
    this.stored = new Map(answer.features.map((feature) => [feature.id, feature]));
    this.changed();
  }

  /* Each change has an entry of its own in the browser's storage: windows of one slide cannot overwrite each other's. */

  keep(item) {
    try {
      localStorage.setItem(item.key, JSON.stringify(item.change));
    } catch { /* Without storage a reload would lose what the server does not have. */ }
  }

  forget(batch) {
    this.waiting = this.waiting.filter((item) => !batch.includes(item));
    try {
      for (const item of batch) localStorage.removeItem(item.key);
    } catch { /* No storage, nothing kept. */ }
  }

  kept() {
    const found = [];
    try {
      for (const key of Object.keys(localStorage).filter((name) => name.startsWith(this.prefix)).sort()) found.push({ key, change: JSON.parse(localStorage.getItem(key)) });
    } catch { /* No storage, or not ours. */ }
    return found;
  }
}
