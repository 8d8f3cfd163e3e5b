/* Building the page: text is always set as text, so that a name is never parsed as HTML. */

/** An element: h('button.main', {onclick, 'aria-label': ...}, ...children). Children are elements, text or null. */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || (value === false && !name.startsWith('aria-'))) continue;
    if (name.startsWith('aria-')) element.setAttribute(name, String(value));
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'style') Object.assign(element.style, value);
    else if (name in element && !name.includes('-') && name !== 'list') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  add(element, ...children);
  return element;
}

export function add(element, ...children) {
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, ...children);
}

const PATHS = {
  hand: 'M8 12V6a1.5 1.5 0 0 1 3 0v5-7a1.5 1.5 0 0 1 3 0v7-5a1.5 1.5 0 0 1 3 0v8c0 4-2 6-6 6-3 0-4-1-6-4l-2-4c1-1 2-1 3 0l2 2',
  point: 'M12 21s-6-6-6-11a6 6 0 0 1 12 0c0 5-6 11-6 11zM12 12a2 2 0 1 0 0-4 2 2 0 0 0 0 4z',
  rect: 'M4 6h16v12H4z', polygon: 'M5 9l6-5 8 4-2 10-9 2z', brush: 'M20 4c-5 2-8 5-10 8l2 2c3-2 6-5 8-10zM9 13c-3 0-3 4-6 5 3 2 8 1 8-3',
  erase: 'M4 16l8-9 7 6-6 7H8zM12 20h8', minus: 'M5 12h14', plus: 'M5 12h14M12 5v14',
  fit: 'M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5', split: 'M4 5h16v14H4zM12 5v14', help: 'M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 17.5v.5',
  left: 'M15 5l-7 7 7 7', right: 'M9 5l7 7-7 7', undo: 'M9 7L5 11l4 4M5 11h9a5 5 0 0 1 0 10h-3', link: 'M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1',
};

/** A line drawing, 24 x 24, hidden from screen readers: the button it is in has a name. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  for (const [key, value] of Object.entries({ viewBox: '0 0 24 24', 'aria-hidden': 'true' })) svg.setAttribute(key, value);
  const drawn = { d: PATHS[name], fill: 'none', stroke: 'currentColor', 'stroke-width': '1.8', 'stroke-linecap': 'round', 'stroke-linejoin': 'round' };
  for (const [key, value] of Object.entries(drawn)) path.setAttribute(key, value);
  svg.append(path);
  return svg;
}

let noticeTimer = 0;

/** Show a sentence at the lower edge for a few seconds. */
export function notice(text, bad = false) {
  fill(document.getElementById('notice'), h(bad ? 'div.bad' : 'div', {}, text));
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => fill(document.getElementById('notice')), bad ? 8000 : 3000);
}

/** A command with a button that copies it. */
export function command(text) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      notice('Copied');
    } catch {
      getSelection().selectAllChildren(code);
      notice('Press Ctrl+C to copy');
    }
  };
  const code = h('code', {}, text);
  return h('div.command', {}, code, h('button', { onclick: copy, 'aria-label': `Copy the command ${text}` }, 'Copy'));
}

export function number(value, digits = 0) {
  return value === null || value === undefined ? '–' : value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits }).replaceAll(',', ' ');
}

export function counted(count, noun) {
  const several = /(s|x|ch|sh)$/.test(noun) ? `${noun}es` : `${noun}s`;
  return `${number(count)} ${count === 1 ? noun : several}`;
}

/** Debounce: calls `work` once there was no call for `wait` milliseconds. */
export function later(work, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

export function selectOf(label, choices, value, onchange) {
  const options = choices.map(([key, text]) => h('option', { value: key, selected: key === value }, text));
  return h('label', {}, label, h('select', { onchange: (event) => onchange(event.target.value) }, options));
}
