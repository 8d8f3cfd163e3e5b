/* Choose the page to show from the address after #. */
import { add, fill, h, notice } from './dom.js';
import { CohortPage } from './cohort.js';
import { SlidePage } from './slide.js';
import { get, slides } from './source.js';

let about = null;
let page = null;
let kept = '';
let listQuery = '';

function parts() {
  const [path, query] = location.hash.replace(/^#/, '').split('?');
  const words = path.split('/').filter(Boolean).map(decodeURIComponent);
  return { words, query: Object.fromEntries(new URLSearchParams(query || '')) };
}

/** Put the state of a page into the address without adding an entry to the history; not once another page is asked for. */
function remember(path, query) {
  if (location.hash !== kept) return;
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '' && value !== undefined && value !== null));
  history.replaceState(null, '', `#${path}${words.size ? `?${words}` : ''}`);
  kept = location.hash;
}

async function show() {
  if (page && location.hash === kept) return;
  const asked = location.hash;
  const { words, query } = parts();
  page?.close();
  const ofSlide = words[0] === 'slides' && words[1];
  const facts = ofSlide ? slides.facts(words[1], query.training) : null;
  facts?.catch(() => null); // the page of the slide tells the error
  about = await get('about');
  if (location.hash !== asked) return; // another page was asked for meanwhile
  kept = asked;
  const top = document.getElementById('top');
  const main = document.getElementById('main');
  if (ofSlide) {
    const path = `/slides/${encodeURIComponent(words[1])}`;
    page = new SlidePage(about, words[1], query, (state) => remember(path, state), { list: listQuery, facts });
    document.title = `${words[1]} · ${about.name}`;
    fill(top, h('h1', {}, h('a', { href: `#/${listQuery}` }, about.name), h('span.muted', {}, '›'), h('span.name', {}, words[1])), page.chips, page.head());
  } else {
    page = new CohortPage(about, query, (state) => {
      remember('/', state);
      listQuery = kept.slice(2);
    });
    document.title = about.name;
    fill(top, h('h1.grow', {}, h('span.name', {}, about.name), h('span.muted.small', {}, about.run && about.run !== about.name ? about.run : '')));
  }
  fill(main, page.element);
}

function start() {
  show().catch((error) => {
    fill(document.getElementById('main'), h('p.wait', {}, error.message));
    notice(error.message, true);
  });
}

addEventListener('hashchange', start);
add(document.body);
start();
