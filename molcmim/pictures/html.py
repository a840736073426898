"""A picture of molecules as one HTML page that loads nothing: hovering shows the SMILES, a click copies it.

Every text goes through `escape`; the page also forbids itself to load anything (a content security policy).
"""

from __future__ import annotations

import json
import math

from molcmim.moleculenet.plots import escape
from molcmim.pictures.canvas import SvgCanvas, clean
from molcmim.pictures.molecules import draw_svg
from molcmim.pictures.page import DRAWING, Cell, Group, Page, word_lines

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
CHART_WIDTH = 860.0

#: Colours as in the reports of `molcmim benchmark` (`molcmim.moleculenet.report_style`)
STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #e1e5ea; --pale: #f6f8fa; --ref: #0a5fa5; --refpale: #eaf3fb;
  --bad: #b8430a; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1320px; padding: 26px; color: var(--ink); background: #fff; font: 13px/1.4
  system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 22px; line-height: 1.25; margin: 0 0 6px; }
p { margin: 0 0 4px; color: var(--soft); }
.bar { margin-top: 10px; display: none; } .js .bar { display: block; }
select { font: inherit; padding: 2px 6px; margin-left: 4px; }
.chart { margin: 16px 0 0; max-width: 900px; } svg { display: block; max-width: 100%; height: auto; }
.group { display: grid; grid-template-columns: repeat(auto-fill, minmax(186px, 1fr)); gap: 12px; margin: 16px 0 0;
  padding: 0; }
.group + .group { border-top: 1px solid var(--line); padding-top: 16px; }
.arrows { column-gap: 34px; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(406px, 1fr)); gap: 14px 34px;
  margin: 18px 0 0; }
.pairs .group { grid-template-columns: 1fr 1fr; margin: 0; padding: 0; border: 0; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 5px; padding: 3px 6px 6px; position: relative;
  cursor: copy; text-align: center; min-width: 0; background: #fff; }
figure:hover, figure:focus-visible { box-shadow: 0 1px 7px rgba(20, 30, 40, 0.18); outline: none; }
figure > svg { margin: 0 auto; }
figure > header { display: flex; justify-content: space-between; font-size: 11.5px; color: var(--soft); height: 18px;
  padding: 0 3px; }
figcaption { font-size: 12px; } figcaption span { display: block; text-wrap: balance; overflow-wrap: anywhere; }
.words { height: 124px; display: flex; align-items: center; justify-content: center; color: var(--soft);
  font-size: 11.5px; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .ink { color: var(--ink); }
span.start { color: var(--ref); } span.end { color: var(--bad); }
figure b { font-weight: 400; } figure.seed, figure.start, figure.end { border-width: 1.5px; }
figure.seed, figure.start { border-color: var(--ref); background: var(--refpale); }
figure.end { border-color: var(--bad); background: #fdf3ec; }
.seed b, .start b { color: var(--ref); font-weight: 600; } .end b { color: var(--bad); font-weight: 600; }
figure.invalid { background: var(--pale); }
.arrows figure + figure::before { content: "\\2192"; position: absolute; left: -28px; top: 66px; color: var(--soft);
  font-size: 19px; }
figure.copied::after { content: "SMILES copied"; position: absolute; left: 50%; top: 40%; transform: translateX(-50%);
  background: var(--ink); color: #fff; border-radius: 4px; padding: 3px 9px; font-size: 12px; white-space: nowrap; }
@media print { body { padding: 0; } .js .bar { display: none; } figure { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

SCRIPT = r"""
(function () {
  "use strict";
  document.documentElement.className = "js";
  function all(s, e) { return Array.prototype.slice.call((e || document).querySelectorAll(s)); }
  function old(text) {  // where the page may not use the clipboard directly
    var area = document.createElement("textarea");
    area.value = text; document.body.appendChild(area); area.select();
    try { document.execCommand("copy"); } finally { area.remove(); }
  }
  function copy(figure) {
    var text = figure.dataset.smiles;
    if (navigator.clipboard && window.isSecureContext) {
      navigator.clipboard.writeText(text).catch(function () { old(text); });
    } else { old(text); }
    figure.classList.add("copied");
    setTimeout(function () { figure.classList.remove("copied"); }, 900);
  }
  all("figure[data-smiles]").forEach(function (figure) {
    figure.addEventListener("click", function () { copy(figure); });
    figure.addEventListener("keydown", function (e) { if (e.key === "Enter") { copy(figure); } });
  });
  var select = document.querySelector("select");
  if (!select) { return; }
  var first = all(".group").map(function (g) { return all("figure", g); });
  select.addEventListener("change", function () {
    var name = select.value.slice(1), sign = select.value[0] === "-" ? -1 : 1;
    all(".group").forEach(function (group, i) {
      function key(figure) {
        if (figure.classList.contains("seed")) { return -Infinity; }
        var v = JSON.parse(figure.dataset.values || "{}")[name];
        return v === undefined ? Infinity : sign * v;
      }
      var cells = first[i].slice();
      if (name) { cells.sort(function (a, b) { var x = key(a), y = key(b); return x < y ? -1 : x > y ? 1 : 0; }); }
      cells.forEach(function (figure) { group.appendChild(figure); });
    });
  });
}());
"""


def to_html(page: Page) -> str:
    """The picture as the text of an HTML page."""
    title = escape(clean(page.title or "Molecules"))
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>"
    ]
    if page.title:
        parts.append(f"<h1>{title}</h1>")
    parts.append(f"<p>{escape(clean(page.note))}</p>")
    parts.append(_sorting(page))
    if page.chart:
        canvas = SvgCanvas(CHART_WIDTH, page.chart.height, "chart")
        page.chart.draw(canvas, 0.0, 0.0, CHART_WIDTH)
        parts.append(f'<div class="chart">{canvas.render("none")}</div>')
    groups = "\n".join(_group(group) for group in page.groups)
    pairs = bool(page.groups) and all(group.arrows and len(group.cells) == 2 for group in page.groups)
    parts.append(f'<div class="pairs">{groups}</div>' if pairs else groups)
    parts.append(f"<script>{SCRIPT}</script></body></html>\n")
    return "\n".join(part for part in parts if part)


def _sorting(page: Page) -> str:
    """Choice of an order, where there are numbers to sort by and no arrows to follow."""
    cells = sorted((cell for group in page.groups for cell in group.cells), key=lambda cell: cell.kind == "seed")
    names = dict.fromkeys(name for cell in cells for name, value in cell.values.items() if math.isfinite(value))
    if not names or any(group.arrows for group in page.groups):
        return ""
    options = "".join(
        f'<option value="{sign}{escape(name)}">{escape(name)}, {word}</option>'
        for name in names
        for sign, word in (("-", "highest first"), ("+", "lowest first"))
    )
    return f'<div class="bar"><label>Order<select><option value="+">as written</option>{options}</select></label></div>'


def _group(group: Group) -> str:
    kind = "group arrows" if group.arrows else "group"
    return f'<section class="{kind}">{"".join(_figure(cell) for cell in group.cells)}</section>'


def _figure(cell: Cell) -> str:
    values = {name: value for name, value in cell.values.items() if math.isfinite(value)}
    smiles = escape(clean(cell.smiles))
    attributes = f' title="{smiles}" data-smiles="{smiles}" tabindex="0"' if cell.smiles else ""
    if values:
        attributes += f' data-values="{escape(json.dumps(values))}"'
    head = f"<b>{escape(clean(cell.tag))}</b><span>{escape(clean(cell.mark))}</span>"
    if cell.mol is not None:
        width, height = DRAWING
        inside = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" aria-label="{smiles}">'
        inside += f"{draw_svg(cell.mol, width, height)}</svg>"
    else:
        inside = f'<div class="words"><div>{"<br>".join(escape(line) for line in word_lines(cell.words))}</div></div>'
    caption = "".join(f'<span class="{line.kind}">{escape(clean(line.text))}</span>' for line in cell.caption)
    more = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{escape(cell.kind)}"{attributes}><header>{head}</header>{inside}{more}</figure>'
