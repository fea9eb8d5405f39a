"""How charts look: colours for light and dark screens, and for paper."""

from typing import Final

STYLE: Final = """
:root {
  --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df;
  --c4: #0b7285; --c5: #bf3989; --c6: #9a6700; --c7: #57606a;
  --queued: #8c959f66; --preparing: #d4a72c; --switching: #57ab9a; --bar: #0969da99;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff;
    --c4: #39c5cf; --c5: #f778ba; --c6: #d29922; --c7: #8b949e;
    --queued: #8b949e66; --preparing: #d29922; --switching: #3d8f80; --bar: #58a6ff99;
  }
}
code { overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; min-width: 0; }
figcaption, .reading { overflow-wrap: anywhere; }
.reading { margin: .2rem 0; }
.note { font-size: .9em; opacity: .8; }
.pair { display: grid; gap: 1rem 2rem; }
.pair { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.legend, .facts { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .4rem 0; }
.swatch { width: 14px; height: 12px; vertical-align: -1px; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
table { font-size: .9em; }
figure table { font-size: .85em; }
tr.why td { border-top: 0; padding-top: 0; opacity: .8; white-space: normal; }
div.why { font-size: .9em; opacity: .8; }
.chart { display: block; width: 100%; height: auto; }
.timeline { min-width: 54rem; }
.chart text { font: 12px system-ui, sans-serif; fill: currentColor; }
.chart .title, .chart .number { opacity: .8; }
.chart .number { font-size: 11px; }
.chart .group { font-weight: 600; }
.chart .fate { fill: var(--failure); }
.axis { stroke: currentColor; opacity: .6; }
.grid { stroke: var(--line); }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); }
.s4 { --c: var(--c4); } .s5 { --c: var(--c5); } .s6 { --c: var(--c6); } .s7 { --c: var(--c7); }
.key { fill: var(--c); }
.step { fill: var(--c); fill-opacity: .12; stroke: var(--c); stroke-width: 1.6; }
.curve { fill: none; stroke: var(--c); stroke-width: 2; }
.dot { fill: var(--c); stroke: Canvas; }
.dashed { stroke-dasharray: 5 3; }
.key.dashed { fill-opacity: .3; stroke: var(--c); }
.claim { stroke: currentColor; stroke-dasharray: 6 4; opacity: .8; }
.floor { stroke: var(--c); stroke-width: 1; stroke-dasharray: 1 3; }
.dirty { fill: var(--bar); }
.last { fill: var(--failure); }
.rate { fill: none; stroke: var(--c1); stroke-width: 2; }
.rate-dot, .rate-key { fill: var(--c1); }
.phase-queued { fill: var(--queued); }
.phase-preparing { fill: var(--preparing); }
.phase-copying { fill: var(--c0); }
.phase-blackout { fill: var(--failure); }
.phase-switching { fill: var(--switching); }
.phase-unknown { fill: none; stroke: currentColor; stroke-dasharray: 3 2; opacity: .7; }
@media print {
  body { max-width: none; margin: 0; font-size: 12px; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  .timeline { min-width: 0; }
  .pair { grid-template-columns: 1fr 1fr; }
  figure table { font-size: .7em; }
  td { white-space: normal; }
  tr:has(+ .why) { break-after: avoid; }
}
"""
