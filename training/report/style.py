"""The style of a report: light or dark as the reader's system is, one column on a phone."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --box: #f6f7f9; --line: #d5d9df; --text: #1c1f23; --quiet: #5a626c;
  --train: #8a6d1b; --shown: #1f5fa8; --third: #7b3fa0; --wrong: #b3261e; --cell: 31 95 168;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --box: #1e2328; --line: #3a4149; --text: #e6e9ec; --quiet: #a2abb5;
    --train: #e0c36a; --shown: #7db4f0; --third: #cf9cf0; --wrong: #ff9a90; --cell: 90 155 230;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; padding-top: 0.5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; }
p { margin: 0.5rem 0; }
.quiet, figcaption { color: var(--quiet); }
.missing { border-left: 4px solid var(--wrong); background: var(--box); padding: 0.5rem 0.75rem; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.facts { display: grid; gap: 0.5rem; margin: 1rem 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.5rem), 1fr)); }
.facts div { background: var(--box); border: 1px solid var(--line); border-radius: 0.5rem; padding: 0.5rem 0.75rem; }
.facts dt { color: var(--quiet); font-size: 0.85rem; }
.facts dd { margin: 0; font-size: 1.05rem; font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: bottom; }
td { overflow-wrap: normal; max-width: 40rem; }
.number { text-align: right; white-space: nowrap; }
.confusion td { text-align: right; min-width: 2.2rem; background: rgb(var(--cell) / var(--share, 0)); }
.confusion thead th.upright { writing-mode: vertical-rl; max-height: 10rem; overflow: hidden; padding: 0.6rem 0.2rem; }
.confusion th { max-width: 12rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: normal; }
figure { margin: 0; min-width: 0; } .grid figure { max-width: 36rem; }
figcaption { font-size: 0.85rem; }
.pictures { display: grid; gap: 0.75rem; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
.pictures img { width: 100%; height: auto; image-rendering: pixelated; background: var(--box); }
.wide img { width: 100%; height: auto; image-rendering: pixelated; }
.answer { color: var(--wrong); }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--quiet); font: 13px system-ui, sans-serif; }
svg .axis { stroke: var(--line); fill: none; }
svg .curve { fill: none; stroke-width: 2; }
svg .train { stroke: var(--train); } svg .shown { stroke: var(--shown); } svg .third { stroke: var(--third); }
svg .dot.train { fill: var(--train); } svg .dot.shown { fill: var(--shown); } svg .dot.third { fill: var(--third); }
svg .dot { stroke: none; } svg .best { fill: none; stroke-width: 2; } svg .roof { stroke: var(--quiet); fill: none; }
svg text.train { fill: var(--train); stroke: none; } svg text.shown { fill: var(--shown); stroke: none; }
svg text.third { fill: var(--third); stroke: none; }
@media print { .scroll { overflow: visible; } }
"""
