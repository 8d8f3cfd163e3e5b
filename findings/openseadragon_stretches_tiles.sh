#!/usr/bin/env bash
# OpenSeadragon draws a tile one pixel larger than it is, against seams, unless tiles overlap. At one image pixel to one
# screen pixel the picture is then resampled: what the viewer of a slide shows are not the scanner's pixels. This
# program's viewer sets a tiny overlap where tiles lie on whole pixels of the screen. Needs npm and chromium.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent openseadragon@6.1.1 >/dev/null
tar xzf openseadragon-6.1.1.tgz
"${PYTHON:-python3}" - <<'PYTHON'
import base64
import struct
import zlib
from pathlib import Path

SIDE = 256
rows = b"".join(b"\0" + b"\0\xff" * (SIDE // 2) for _ in range(SIDE))  # columns alternate between black and white


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
url = "data:image/png;base64," + base64.b64encode(png).decode()
Path("page.html").write_text(f"""<body style="margin:0"><div id="v" style="width:512px;height:256px"></div><pre id="said"></pre><img src="slow">
<script src="package/build/openseadragon/openseadragon.min.js"></script><script>
function look(tileOverlap) {{
  return new Promise((done) => {{
    const source = {{ width: 512, height: 256, tileSize: 256, minLevel: 0, maxLevel: 0, getLevelScale: () => 1,
      getNumTiles: () => new OpenSeadragon.Point(2, 1), getTileUrl: () => "{url}",
      getTileBounds: (l, x, y, own) => own ? new OpenSeadragon.Rect(0, 0, 256, 256) : new OpenSeadragon.Rect(x / 2, 0, 0.5, 0.5) }};
    const viewer = OpenSeadragon({{ id: "v", drawer: "canvas", tileSources: source, showNavigationControl: false, animationTime: 0 }});
    viewer.addHandler("open", () => {{ viewer.world.getItemAt(0).source.tileOverlap = tileOverlap; viewer.forceRedraw(); }});
    setTimeout(() => {{
      const row = viewer.drawer.canvas.getContext("2d").getImageData(0, 100, 512, 1).data;
      const greys = Array.from({{ length: 512 }}, (_, x) => row[4 * x]);
      viewer.destroy();
      done(greys.filter((grey, x) => grey !== (x % 2 ? 255 : 0)).length);
    }}, 3000);
  }});
}}
(async () => {{
  const [plain, tiny] = [await look(0), await look(1e-9)];
  document.getElementById("said").textContent = `OpenSeadragon ${{OpenSeadragon.version.versionStr}}: ${{plain}} and ${{tiny}}`;
}})();
</script>""")
PYTHON
cat >serve.py <<'PYTHON'
import http.server
import sys
import time


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":  # the browser prints the page once this picture is answered
            time.sleep(15)
        super().do_GET()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
"${PYTHON:-python3}" serve.py >port &
server=$!
trap 'kill "$server"; rm -rf "$work"' EXIT
until [ -s port ]; do sleep 0.2; done
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
dom=$("$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size=600,400 \
  --dump-dom "http://127.0.0.1:$(cat port)/page.html" 2>/dev/null)
said=$(sed -n 's/.*<pre id="said">\(OpenSeadragon [^<]*\)<.*/\1/p' <<<"$dom")
echo "a picture of two tiles of 256 pixels, black and white columns in turn, one image pixel to one screen pixel"
echo 'expected: 0 of 512 pixels of a row differ from the picture'
read -r _ version plain _ tiny <<<"$said"
echo "seen: OpenSeadragon ${version%:}: $plain differ; with a tile overlap of 1e-9: $tiny"
[ "$plain" -gt 50 ] && [ "$tiny" -eq 0 ]
