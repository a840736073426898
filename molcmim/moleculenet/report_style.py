"""Style sheet and script of the report page."""

from __future__ import annotations

#: One accent (blue: the reference), one warning colour (vermilion: behind); both told apart by the colour-blind.
STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #e1e5ea; --pale: #f6f8fa; --ref: #0a5fa5; --refpale: #eaf3fb;
  --bad: #b8430a; --mid: #98a2ad; }
* { box-sizing: border-box; }
html { scroll-padding-top: 64px; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", "Liberation Sans", Arial, sans-serif; font-variant-numeric: tabular-nums; }
header, main, nav .bar { max-width: 1200px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 36px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 22px 0 6px; }
.lede { font-size: 17px; color: var(--soft); margin: 0 0 8px; max-width: 56em; }
.what, .small, small, .legend, .footnotes, .caption { color: var(--soft); font-size: 13px; }
.what { margin: 0 0 6px; }
code { font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap:
  anywhere; }
code.ref, tr.reference th code { color: var(--ref); font-weight: 600; }
pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; background:
  var(--pale);
  padding: 8px 12px; margin: 8px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; border-radius: 4px; }
section { padding: 30px 0 6px; }
section p { max-width: 72em; }
.intro { margin: 0 0 10px; color: var(--soft); }
.caption { margin: 0 0 8px; }
.answers p { margin: 0 0 10px; max-width: 70em; padding-left: 14px; border-left: 3px solid var(--line); }
.warning { background: #fff6ec; border-left: 3px solid #d98324; padding: 7px 12px; margin: 0 0 12px; }
.warn { color: #8f4d00; font-weight: 500; }
nav { display: none; position: sticky; top: 0; z-index: 5; background: rgba(255, 255, 255, 0.96); margin-top: 22px;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.js nav { display: block; }
nav .bar { display: flex; flex-wrap: wrap; gap: 6px 22px; align-items: center; padding-top: 7px;
  padding-bottom: 7px; }
nav .name { color: var(--soft); font-size: 13px; margin-right: 8px; }
nav button { font: inherit; font-size: 13.5px; padding: 3px 11px; border: 1px solid #cdd4db; background: #fff;
  cursor: pointer;
  margin-left: -1px; color: var(--ink); }
nav button:first-of-type { border-radius: 4px 0 0 4px; } nav button:last-of-type { border-radius: 0 4px 4px 0; }
nav button:only-of-type { border-radius: 4px; }
nav button[aria-pressed="true"] { background: var(--ink); border-color: var(--ink); color: #fff; }
nav button:disabled { color: #b3bac2; cursor: default; }
nav .links { margin-left: auto; font-size: 13.5px; }
nav .links a { margin-left: 14px; color: var(--soft); text-decoration: none; }
nav .links a:hover { color: var(--ref); }
.js .view { display: none; } .js .view.shown { display: block; }
#reading details { border: 1px solid var(--line); border-radius: 4px; padding: 10px 16px; background: var(--pale); }
summary { cursor: pointer; font-weight: 600; }
#reading dl { columns: 2; column-gap: 36px; margin: 8px 0 2px; font-size: 13.5px; }
#reading dt { font-weight: 600; break-after: avoid; }
#reading dd { margin: 0 0 8px; color: #39424c; break-inside: avoid; }
dl dt { font-weight: 600; } dl dd { margin: 0 0 8px; max-width: 72em; }
dl.run { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; } dl.run dd { margin: 0; }
.scroll { overflow-x: auto; max-height: 82vh; overflow-y: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: 14px; }
table.data thead th { position: sticky; top: 0; background: #fff; z-index: 2; text-align: right;
  vertical-align: bottom;
  font-weight: 600; border-bottom: 1.5px solid var(--ink); padding: 4px 12px 6px; line-height: 1.35; }
table.data thead th small { display: block; font-weight: 400; }
table.data thead th:first-child, table.data tbody th, table.plain td, table.plain th { text-align: left !important; }
table.data thead th[data-sort] { cursor: pointer; } table.data thead th[data-sort]:hover { color: var(--ref); }
table.data th.sorted { box-shadow: inset 0 -3px 0 var(--ref); }
table.data td, table.data tbody th { padding: 5px 12px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; font-weight: 400; line-height: 1.35; }
table.data tbody th { position: sticky; left: 0; background: #fff; z-index: 1; white-space: nowrap; }
table.data td small { display: block; font-size: 12px; white-space: nowrap; }
table.data tbody tr:hover td, table.data tbody tr:hover th { background: var(--pale); }
table.data tr.reference td, table.data tr.reference th { background: var(--refpale); }
table.data tr.reference th { box-shadow: inset 3px 0 0 var(--ref); }
td.none { color: var(--mid); } .tie { color: var(--soft); }
sup { font-size: 10px; color: var(--soft); margin-left: 1px; }
table.params td { font-size: 12.5px; }
abbr { text-decoration: underline dotted #aab2bb; text-underline-offset: 3px; cursor: help; }
span.ahead { color: var(--ref); } span.behind { color: var(--bad); }
span.ahead, span.behind, span.tie, span.untested {
  font-size: 12.5px; white-space: nowrap; }
span.untested { color: var(--mid); }
.legend { margin: 8px 0; } .footnotes { margin: 0 0 10px; padding-left: 20px; }
.grid { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 18px 14px; margin-top: 16px; }
figure { margin: 0; break-inside: avoid; } figcaption { font-weight: 600; font-size: 14px; margin-bottom: 2px; }
svg { display: block; max-width: 100%; height: auto; } svg.plot text { font-size: 12px; fill: var(--ink); }
svg.plot .tick, svg.plot .axis, svg.plot .end { fill: var(--soft); font-size: 11.5px; }
svg .grid { stroke: #eef1f4; } svg .zero { stroke: #59636e; } svg .hit { fill: transparent; }
svg g:hover > .hit { fill: #f1f4f7; }
svg .strong { font-weight: 600; } svg .dots .label { font-size: 12px; }
svg .whisker { stroke: #a3adb8; stroke-width: 1.6; } svg .dot { fill: #8b96a2; }
svg .best .dot { fill: #2b323a; } svg .best .whisker { stroke: #2b323a; }
svg .reference .dot, svg .ahead .dot { fill: var(--ref); }
svg .reference .whisker, svg .ahead .whisker { stroke: var(--ref); }
svg.plot .reference text { fill: var(--ref); font-weight: 600; }
svg .behind .dot { fill: var(--bad); } svg .behind .whisker { stroke: var(--bad); }
svg .tie .dot { fill: #fff; stroke: #77828e; stroke-width: 1.6; }
svg.plot .ahead .number { fill: var(--ref); } svg.plot .behind .number { fill: var(--bad); }
svg.plot .tie .number { fill: var(--soft); }
svg .axisline { stroke: #59636e; fill: none; } svg .cd { stroke: #59636e; stroke-width: 1.6; }
svg .clique { stroke: #2b323a; stroke-width: 4; stroke-linecap: round; }
svg .elbow { fill: none; stroke: #b3bcc6; } svg .reference .elbow { stroke: var(--ref); stroke-width: 1.6; }
.agreements { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 26px; }
.pairs { display: flex; gap: 8px; flex-wrap: wrap; } .pair p { margin: 0 0 2px; } .pair { max-width: 272px; }
svg .diagonal { stroke: #2b323a; stroke-width: 1.2; }
.reference .point { fill: var(--ref); fill-opacity: 0.4; } .other .point { fill: #49525c; fill-opacity: 0.38; }
.reference .h1 { fill: #cfe1f1; } .reference .h2 { fill: #94bfe2; } .reference .h3 { fill: #4f93cb; }
.reference .h4 { fill: #1a69ad; } .reference .h5 { fill: #063c6d; }
.other .h1 { fill: #dfe2e6; } .other .h2 { fill: #b5bcc4; } .other .h3 { fill: #868f99; }
.other .h4 { fill: #565e67; }
.other .h5 { fill: #262b31; }
.mapbox { margin: 8px 0 26px; break-inside: avoid; } .mapbox .small { margin: 0 0 8px; }
.mapline { display: grid; grid-template-columns: minmax(0, 8fr) minmax(0, 5fr); gap: 20px; align-items: start; }
.examples { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 6px; }
.examples figure { border: 1px solid var(--line); border-radius: 4px; padding: 2px 4px; position: relative; }
.examples figure span { position: absolute; left: 5px; top: 2px; font-size: 11px; font-weight: 600; color:
  var(--soft); }
.examples figcaption { font-weight: 400; font-size: 11.5px; color: var(--soft); text-align: center; margin: 0;
  white-space: nowrap; }
svg.molecule text { font-family: "Liberation Sans", Arial, Helvetica, sans-serif; }
svg .bond { fill: none; stroke: #222; stroke-width: 2; stroke-linecap: round; }
svg .wedge { fill: #222; stroke: #222; }
svg .frame { fill: #fcfdfd; stroke: var(--line); } svg .points circle { stroke: #fff; stroke-width: 0.6; }
svg .example { fill: #fff; stroke: #2b323a; stroke-width: 1.2; }
svg.plot .exampletext { font-size: 9.5px; font-weight: 600; }
.canvas { position: relative; } svg .ring { fill: none; stroke: #111; stroke-width: 1.8; pointer-events: none; }
svg .near { stroke: #111; stroke-width: 1; stroke-opacity: 0.55; pointer-events: none; fill: none; }
.card { position: absolute; z-index: 4; width: 232px; padding: 6px 10px 8px; background: #fff; border: 1px
  solid #b8c1ca;
  border-radius: 5px; box-shadow: 0 4px 16px rgba(20, 30, 40, 0.16); pointer-events: none; font-size: 12.5px; }
.card b { display: block; }
.card code { font-size: 11px; color: var(--soft); line-height: 1.35; overflow: hidden;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 6; }
.answers code { white-space: nowrap; }  /* no line ends within a label */
.hash { color: var(--soft); } table.data td code { white-space: nowrap; }
#settings details, #settings table { margin-bottom: 6px; }
@media (max-width: 1000px) { .grid { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .mapline { grid-template-columns: 1fr; } }
@media (max-width: 1000px) { .agreements { grid-template-columns: 1fr; } }
@media (max-width: 680px) { .grid, .agreements { grid-template-columns: 1fr; } #reading dl { columns: 1; } }
@media print { body { font-size: 10.5pt; } nav, .js nav { display: none; }
.scroll { overflow: visible; max-height: none; }
  table.data thead th { position: static; } section { padding-top: 16px; }
header, main { padding: 0; max-width: none; }
  table.data { font-size: 11.5px; } table.data td, table.data tbody th, table.data thead th { padding: 3px 6px; }
  table.data td small { font-size: 10px; } span.ahead, span.behind, span.tie { font-size: 10.5px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

#: Protocol and head buttons (kept in the address, so that a view can be linked to), sorting, molecules on hover.
SCRIPT = r"""
(function () {
  "use strict";
  var root = document.documentElement;
  function all(s, e) { return Array.prototype.slice.call((e || document).querySelectorAll(s)); }
  root.className = "js";
  var views = all(".view"), state = {}, have = {};
  views.forEach(function (v) { have[v.dataset.protocol + "\n" + v.dataset.head] = true; });
  function exists(p, h) { return have[p + "\n" + h] === true; }
  function show() {
    views.forEach(function (v) {
      v.classList.toggle("shown", v.dataset.protocol === state.protocol && v.dataset.head === state.head);
    });
    all("nav button").forEach(function (b) {
      var kind = b.dataset.protocol !== undefined ? "protocol" : "head";
      b.setAttribute("aria-pressed", String(b.dataset[kind] === state[kind]));
      b.disabled = kind === "head" && !exists(state.protocol, b.dataset.head);
    });
    all("section").forEach(function (s) {  // a section without anything for this view
      var mine = all(".view", s);
      s.hidden = mine.length > 0 && !mine.some(function (v) { return v.classList.contains("shown"); });
    });
  }
  function choose(protocol, head) {
    if (!exists(protocol, head)) {
      var first = views.filter(function (v) { return v.dataset.protocol === protocol; })[0] || views[0];
      protocol = first.dataset.protocol; head = first.dataset.head;
    }
    state = { protocol: protocol, head: head };
    show();
  }
  all("nav button").forEach(function (b) {
    b.addEventListener("click", function () {
      choose(b.dataset.protocol || state.protocol, b.dataset.head || state.head);
      var q = "?protocol=" + encodeURIComponent(state.protocol) + "&head=" + encodeURIComponent(state.head);
      try { history.replaceState(null, "", q + location.hash); } catch (e) { /* not allowed for some local files */ }
    });
  });
  var query = new URLSearchParams(location.search);
  if (views.length) {
    choose(query.get("protocol") || views[0].dataset.protocol, query.get("head") || views[0].dataset.head);
  }

  all("th[data-sort]").forEach(function (th) {
    function sort() {
      var table = th.closest("table"), body = table.tBodies[0], i = th.cellIndex;
      var down = th.classList.contains("sorted") ? th.dataset.now !== "desc" : th.dataset.sort === "desc";
      all("th", table.tHead).forEach(function (o) { o.classList.remove("sorted"); });
      th.classList.add("sorted"); th.dataset.now = down ? "desc" : "asc";
      function key(row) { var v = parseFloat(row.cells[i].dataset.v); return isNaN(v) ? Infinity : down ? -v : v; }
      var rows = all("tr", body).sort(function (a, b) { return key(a) - key(b) || 0; });
      rows.forEach(function (r) { body.appendChild(r); });
    }
    th.addEventListener("click", sort);
    th.addEventListener("keydown", function (e) { if (e.key === "Enter") { sort(); } });
  });

  var NS = "http://www.w3.org/2000/svg", INK = ["#222", "#2b5fc9", "#c62828", "#96700a", "#21803a"];
  function svg(name, attributes, parent) {
    var e = document.createElementNS(NS, name);
    Object.keys(attributes).forEach(function (k) { e.setAttribute(k, attributes[k]); });
    if (parent) { parent.appendChild(e); }
    return e;
  }
  function molecule(data, p) {
    var s = svg("svg", { "class": "molecule", viewBox: "0 0 " + data.width + " " + data.height });
    svg("path", { "class": "bond", d: p[5] }, s);
    if (p[6]) { svg("path", { "class": "wedge", d: p[6] }, s); }
    p[7].forEach(function (l) {
      svg("text", { x: l[0], y: l[1], "font-size": l[2], fill: INK[l[4]] || INK[0] }, s).textContent = l[3];
    });
    return s;
  }
  all(".mapbox").forEach(function (box) {
    var source = box.querySelector(".mapdata"), canvas = box.querySelector(".canvas");
    if (!source) { return; }
    var data = JSON.parse(source.textContent), plot = canvas.querySelector("svg.map");
    var links = plot.querySelector(".links");
    var card = document.createElement("div"), rings = svg("g", {}, plot), now = -1, pinned = false;
    card.className = "card"; card.hidden = true; canvas.appendChild(card);
    function clear() { now = -1; card.hidden = true; rings.textContent = ""; links.textContent = ""; }
    function show(i) {
      if (i === now) { return; }
      clear(); now = i;
      var p = data.points[i], scale = plot.getBoundingClientRect().width / plot.viewBox.baseVal.width;
      p[4].forEach(function (j) {
        var o = data.points[j];
        if (!o) { return; }
        svg("path", { "class": "near", d: "M" + p[0] + " " + p[1] + "L" + o[0] + " " + o[1] }, links);
        svg("circle", { "class": "near", cx: o[0], cy: o[1], r: 6.5 }, rings);
      });
      svg("circle", { "class": "ring", cx: p[0], cy: p[1], r: 6.5 }, rings);
      card.textContent = "";
      if (p[5] || p[7].length) { card.appendChild(molecule(data, p)); }
      var b = document.createElement("b"), c = document.createElement("code");
      b.textContent = p[2]; c.textContent = p[3];
      card.appendChild(b); card.appendChild(c);
      card.hidden = false;
      var x = p[0] * scale + 16, y = p[1] * scale - card.offsetHeight / 2, left = p[0] * scale - card.offsetWidth - 16;
      var away = 0;  // the card goes to the side with fewer neighbours, if it fits there
      p[4].forEach(function (j) { if (data.points[j]) { away += data.points[j][0] > p[0] ? 1 : -1; } });
      if (left > 0 && (away > 0 || p[0] * scale > canvas.offsetWidth * 0.75)) { x = left; }
      card.style.left = x + "px";
      card.style.top = Math.max(-8, Math.min(y, canvas.offsetHeight - card.offsetHeight + 8)) + "px";
    }
    function nearest(e) {
      var r = plot.getBoundingClientRect(), scale = plot.viewBox.baseVal.width / r.width;
      var x = (e.clientX - r.left) * scale, y = (e.clientY - r.top) * scale, best = -1, least = 14 * 14;
      data.points.forEach(function (p, i) {
        var d = (p[0] - x) * (p[0] - x) + (p[1] - y) * (p[1] - y);
        if (d < least) { least = d; best = i; }
      });
      return best;
    }
    plot.addEventListener("mousemove", function (e) {
      if (pinned) { return; }
      var i = nearest(e);
      if (i < 0) { clear(); } else { show(i); }
    });
    plot.addEventListener("mouseleave", function () { if (!pinned) { clear(); } });
    plot.addEventListener("click", function (e) {  // a click keeps the card, another one lets it go
      var i = nearest(e);
      pinned = i >= 0 && !(pinned && i === now);
      if (i < 0) { clear(); } else { show(i); }
    });
  });
}());
"""
