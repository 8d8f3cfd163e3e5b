/* A sheet of patches: pictures that link to their places on the slide. */
import { h } from './dom.js';
import { isExport, regionUrl, slides, tileUrl } from './source.js';

/** `patches` have id, x, y, side; `said` returns the lines of text for each; `go` is called with the selected one. */
export function sheetOf(patches, said, go, small = false) {
  const px = small ? 96 : 192;
  return h(small ? 'div.sheet.six' : 'div.sheet', {}, patches.map((patch) => {
    const lines = said(patch);
    const picture = isExport ? pictureOfTiles(patch, px) : h('img', { src: regionUrl(patch.id, patch, px), loading: 'lazy', alt: '' });
    const words = small ? null : h('span.said', {}, h('b', {}, lines[0]), lines.slice(1).join(' · '));
    return h('button', { onclick: () => go(patch), title: lines.join(', '), 'aria-label': `Go to the patch: ${lines.join(', ')}` }, picture, words);
  }));
}

/** A picture of a patch from the tiles of an exported folder: of the coarsest level that is fine enough, or the finest. */
function pictureOfTiles(patch, px) {
  const canvas = h('canvas', { width: px, height: px });
  slides.facts(patch.id).then((facts) => {
    const number = facts.levels.findIndex((one) => (patch.side * one.width) / facts.width >= px);
    const at = number < 0 ? facts.levels.length - 1 : number;
    const { width, height, tile_width: across, tile_height: down } = facts.levels[at];
    const scale = width / facts.width; // pixels of the level per level-0 pixel
    const zoom = px / (patch.side * scale);
    const last = (edge, step, size) => Math.min(Math.ceil(size / step), Math.ceil((edge * scale) / step)) - 1;
    for (let row = Math.floor((patch.y * scale) / down); row <= last(patch.y + patch.side, down, height); row += 1) {
      for (let column = Math.floor((patch.x * scale) / across); column <= last(patch.x + patch.side, across, width); column += 1) {
        const tile = new Image();
        const [x, y] = [column * across - patch.x * scale, row * down - patch.y * scale];
        tile.onload = () => canvas.getContext('2d').drawImage(tile, x * zoom, y * zoom, tile.width * zoom, tile.height * zoom);
        tile.src = tileUrl(facts, at, column, row);
      }
    }
  }).catch(() => null); // without a picture the button still leads to the patch
  return canvas;
}
