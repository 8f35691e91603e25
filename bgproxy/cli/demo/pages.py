"""The shop's one page, in the colours of its version."""

from __future__ import annotations

from typing import Any, Final

#: Background, foreground of each pool; told apart by their names too, for those who do not see colours.
_COLOURS: Final = {"blue": ("#1d4ed8", "#dbeafe"), "green": ("#15803d", "#dcfce7")}

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Teapots @version@ (@colour@)</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: @pale@; color: #111; }
  header { background: @strong@; color: #fff; padding: 1rem 2rem; }
  main { max-width: 60rem; margin: auto; padding: 1rem 2rem; }
  table { border-collapse: collapse; } td { padding: .2rem 1.5rem .2rem 0; }
  section { background: #fff; border-radius: .5rem; padding: .5rem 1rem 1rem; margin: 1rem 0; }
  h2 { font-size: 1rem; margin: .5rem 0; }
  #answers span { display: inline-block; width: 1.3rem; margin: 1px; text-align: center; color: #fff; border-radius: 3px; }
  .blue { background: #1d4ed8; } .green { background: #15803d; } .failed { background: #b91c1c; }
  output { font-family: ui-monospace, monospace; display: block; min-height: 1.5em; }
</style>
</head>
<body>
<header><h1>Teapots @version@</h1>This page came from the @colour@ pool. @news@</header>
<main>
<section><table>@products@</table></section>
<section><h2>Who answers new requests (one request every 300 ms)</h2><div id="answers" aria-live="off"></div></section>
<section><h2>Server-sent events, one long answer</h2><output id="events">...</output></section>
<section><h2>WebSocket, one long connection</h2><output id="socket">...</output></section>
<section><h2>A slow request</h2><button id="slow">begin one of 5 seconds, then switch</button><output id="slowly"></output></section>
<section><h2>An upload</h2><input type="file" id="file"><output id="uploaded"></output></section>
</main>
<script>
const show = (id, text) => { document.getElementById(id).textContent = text; };
const answers = document.getElementById("answers");
async function ask() {
  const box = document.createElement("span");
  try {
    const answer = await (await fetch("/api/version", { cache: "no-store" })).json();
    box.className = answer.colour;
    box.textContent = answer.colour[0];
    box.title = answer.colour + " " + answer.version;
  } catch { box.className = "failed"; box.textContent = "!"; }
  answers.append(box);
  while (answers.children.length > 60) answers.firstChild.remove();
  setTimeout(ask, 300);
}
ask();
const source = new EventSource("/events");
source.onmessage = (event) => show("events", event.data);
source.onerror = () => show("events", "ended; connecting again");
function connect() {
  const socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws");
  let timer;
  socket.onopen = () => { timer = setInterval(() => socket.send(new Date().toLocaleTimeString()), 1000); };
  socket.onmessage = (event) => show("socket", event.data);
  socket.onclose = (event) => {
    clearInterval(timer);
    show("socket", "closed with code " + event.code + "; connecting again");
    setTimeout(connect, 1000);
  };
}
connect();
document.getElementById("slow").onclick = async () => {
  show("slowly", "begun ...");
  try { show("slowly", JSON.stringify(await (await fetch("/slow?s=5")).json())); } catch (error) { show("slowly", error); }
};
document.getElementById("file").onchange = async (event) => {
  const answer = await fetch("/upload", { method: "POST", body: event.target.files[0] });
  show("uploaded", JSON.stringify(await answer.json()));
};
</script>
</body>
</html>
"""


def shop_page(colour: str, version: str, products: list[dict[str, Any]]) -> str:
    """The HTML of the page."""
    strong, pale = _COLOURS[colour]
    rows = "".join(f"<tr><td>{product['name']}</td><td>{product['price']:.2f}</td></tr>" for product in products)
    news = "New in 2.0: everything is a tenth cheaper." if colour == "green" else ""
    values = {
        "version": version,
        "colour": colour,
        "strong": strong,
        "pale": pale,
        "news": news,
        "products": rows,
    }
    text = _PAGE
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
