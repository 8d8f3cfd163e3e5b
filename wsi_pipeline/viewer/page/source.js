/* The source of the page's data: the server, or the files beside it in an exported folder. */

const exported = globalThis.WSI_EXPORT || null;
export const isExport = exported !== null;

export class Refused extends Error {
  constructor(said, todo, status) {
    super(todo ? `${said}. ${todo}` : said);
    this.status = status;
  }
}

function slidePath(id, rest = '') {
  return `slides/${encodeURIComponent(id)}${rest}`;
}

async function answered(response) {
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Refused(text || `status ${response.status}`, '', response.status);
  }
  if (!response.ok) throw new Refused(body.error || `status ${response.status}`, body.todo, response.status);
  return body;
}

/** GET an address of the server as JSON. */
export async function get(path, query = {}) {
  if (isExport) return fromFolder(path, query);
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '' && value !== null && value !== undefined));
  return answered(await fetch(words.size ? `${path}?${words}` : path));
}

/** POST a JSON body, get JSON. */
export async function post(path, body) {
  return answered(await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }));
}

export const slides = {
  facts: (id, training) => get(slidePath(id), { training }),
  layer: (id, key) => get(slidePath(id, '/layer'), { key }),
  around: (id, query) => get('cohort/around', { ...query, slide: id }),
  similar: (id, query) => get(slidePath(id, '/similar'), query),
  associated: (id) => get(slidePath(id, '/associated')),
  marks: (id, after) => get(slidePath(id, '/marks'), { after }),
  change: (id, changes) => post(slidePath(id, '/marks'), { changes }),
};

export function associatedUrl(id, name) {
  return slidePath(id, `/associated/${encodeURIComponent(name)}`);
}

export function thumbnailUrl(id, px, version = '') {
  return isExport ? `${exported.folders[id]}/thumbnail.jpg` : slidePath(id, `/thumbnail?px=${px}&v=${version}`);
}

export function tileUrl(facts, level, column, row) {
  if (isExport) return `${exported.folders[facts.id]}/tiles/${level}/${column}_${row}.${exported.endings[facts.id][level]?.[`${column}_${row}`] || 'jpg'}`;
  return slidePath(facts.id, `/tile/${level}/${column}_${row}?v=${facts.version}`);
}

/** A picture of a patch, made by the server. */
export function regionUrl(id, patch, px) {
  return slidePath(id, `/region?x=${patch.x}&y=${patch.y}&side=${patch.side}&px=${px}`);
}

/* An exported folder: answers are scripts, because a page on disk cannot read other files. */

const loading = new Map();

function scriptFor(file) {
  if (!loading.has(file)) {
    loading.set(file, new Promise((done, failed) => {
      const script = document.createElement('script');
      script.src = file;
      script.onload = done;
      script.onerror = () => failed(new Refused(`${file} is missing from the folder`, '', 404));
      document.head.append(script);
    }));
  }
  return loading.get(file);
}

async function fromFolder(path, query) {
  if (path === 'about') return exported.about;
  if (path === 'cohort') return exportedRows(query);
  if (path === 'cohort/around') {
    const names = exportedRows({ ...query, offset: 0, limit: Infinity }).rows.map((row) => row.id);
    const at = names.indexOf(query.slide);
    return { previous: names[at - 1] ?? null, next: names[at + 1] ?? null };
  }
  const key = query.key === undefined ? path : `${path}?${query.key}`;
  const file = exported.files[key];
  if (!file) throw new Refused('this is not part of the exported folder', '', 404);
  await scriptFor(file);
  return globalThis.WSI_DATA[key];
}

function exportedRows(query) {
  const words = (query.text || '').toLowerCase();
  const wrong = (row) => row.predicted !== undefined && row.label !== null && row.label !== String(row.predicted);
  const kept = exported.rows.map((row) => ({ ...row, ...(row.by_training?.[query.training] || {}) })).filter((row) =>
    (!query.label || row.label === query.label) && (!query.site || row.site === query.site) &&
    (!query.fold || String(row.fold ?? '').split(', ').includes(query.fold)) &&
    (!query.state || (query.state === 'wrong' ? wrong(row) : query.state === 'marked' ? row.marks : row.state === query.state)) &&
    [row.id, row.patient, row.label, row.site, row.note].join(' ').toLowerCase().includes(words));
  const key = query.sort || 'order';
  if (key !== 'order') {
    const known = kept.filter((row) => row[key] !== null && row[key] !== undefined);
    known.sort((one, other) => (one[key] < other[key] ? -1 : one[key] > other[key] ? 1 : 0));
    if (query.down === '1') known.reverse();
    kept.splice(0, kept.length, ...known, ...kept.filter((row) => row[key] === null || row[key] === undefined));
  } else if (query.down === '1') kept.reverse();
  const first = Number(query.offset || 0);
  return { total: exported.rows.length, matched: kept.length, rows: kept.slice(first, first + Number(query.limit || 100)) };
}
