"""The style sheet of the report: light and dark, narrow screens, nothing told by colour alone."""

# Kept text has a bar under it, removed text is struck through; wins and losses are words too.
STYLE = """
:root { --ink: #1b2330; --faint: #5b6576; --line: #d9dee7; --paper: #ffffff; --card: #f5f7fa; --keep: #0b7a53;
  --keep-fill: #e3f5ec; --loss: #a3280a; --win: #0b6b49; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --faint: #a3adbd; --line: #343c4a; --paper: #14181f;
  --card: #1b212b; --keep: #5ad1a0; --keep-fill: #12352a; --loss: #ff9d7e; --win: #5ad1a0; --link: #7db8ff; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.25rem; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p { max-width: 60rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; list-style: none; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.scroll { overflow-x: auto; box-sizing: border-box; width: fit-content; max-width: 100%; margin: .6rem 0;
  border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; min-width: 11rem; max-width: 18rem; white-space: normal;
  overflow-wrap: break-word; position: sticky; left: 0; background: var(--paper); }
thead th { white-space: normal; min-width: 3.5rem; color: var(--faint); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; }
th.tested { font-weight: 700; }
td.win { color: var(--win); }
td.loss { color: var(--loss); font-weight: 600; }
.said, thead th.said { text-align: left; }
td.said { white-space: pre-wrap; min-width: 14rem; max-width: 30rem; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem;
  align-items: start; margin: 1rem 0; }
figure { margin: 0; padding: .5rem; background: #ffffff; border: 1px solid var(--line); border-radius: .5rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: #5b6576; font-size: .87rem; text-align: center; }
details { margin: .5rem 0; border: 1px solid var(--line); border-radius: .5rem; padding: 0 .8rem; }
details[open] { padding-bottom: .5rem; }
summary { padding: .5rem 0; cursor: pointer; overflow-wrap: anywhere; }
small { color: var(--faint); font-size: .87rem; }
.case { background: var(--card); }
.document, .case table { background: var(--paper); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.badge { font-size: .8rem; border: 1px solid currentColor; border-radius: .3rem; padding: 0 .35rem;
  color: var(--faint); }
.badge.loss { color: var(--loss); }
mark { color: inherit; background: var(--keep-fill); border-bottom: 2px solid var(--keep); }
del { color: var(--faint); text-decoration: line-through; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; font-size: .85rem; }
code { overflow-wrap: anywhere; font-size: .9em; }
@media (max-width: 40rem) { main { padding: .8rem; } th:first-child { min-width: 7.5rem; max-width: 9rem; }
  th, td { padding: .3rem .5rem; } td.said { min-width: 10rem; } }
@media print { .scroll { overflow: visible; } }
"""
