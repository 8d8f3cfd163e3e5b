/* A sheet of patches: pictures that link to their places on the slide. */
import { h } from './dom.js';
import { regionUrl } from './source.js';

/** `patches` have id, x, y, side; `said` returns the lines of text for each; `go` is called with the selected one. */
export function sheetOf(patches, said, go, small = false) {
  return h(small ? 'div.sheet.six' : 'div.sheet', {}, patches.map((patch, at) => {
    const lines = said(patch);
    const url = regionUrl(patch.id, patch, small ? 96 : 192);
    const picture = url ? h('img', { src: url, loading: 'lazy', alt: '' }) : null;
    const words = !small ? h('span.said', {}, h('b', {}, lines[0]), lines.slice(1).join(' · ')) : url ? null : h('span.said', {}, String(at + 1));
    return h('button', { onclick: () => go(patch), title: lines.join(', '), 'aria-label': `Go to the patch: ${lines.join(', ')}` }, picture, words);
  }));
}
