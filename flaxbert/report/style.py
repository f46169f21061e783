"""The style of a report: light and dark, for screens of any width and for paper."""

LIGHT = """
--ground:#fff; --panel:#f5f6f8; --ink:#1b1f24; --quiet:#57606a; --rule:#d5d9df;
  --grid:#e6e8ec; --c0:#1f5fd0; --c1:#b04a00; --c2:#0b7468; --c3:#8a2fc4; --c4:#a8235d;
  --c5:#5c6300; --heat:31 95 208; --right:#d7f0dc; --wrong:#fbdcd8; --both:#dbe7fd;
  --right-ink:#0d5a24; --wrong-ink:#96201a; --both-ink:#14418f; --warn:#fdf3d7;
  --warn-rule:#a06d00
"""

DARK = """
--ground:#14171b; --panel:#1d2127;
  --ink:#e7eaee; --quiet:#a3adb9; --rule:#3a414a; --grid:#2a3038; --c0:#7db0ff; --c1:#f5a05a;
  --c2:#4fd0bf;
  --c3:#cfa2ff; --c4:#ff8fbb; --c5:#c9d05e; --heat:92 150 255; --right:#173d24; --wrong:#4d211e;
  --both:#1c3358; --right-ink:#8fe3a6; --wrong-ink:#ffaaa2; --both-ink:#a9caff; --warn:#332a12;
  --warn-rule:#d9a937
"""

CONTENT = """
* { box-sizing:border-box }
h1 { font-size:1.7rem; line-height:1.25; margin:0 0 4px; overflow-wrap:anywhere }
h2 { font-size:1.2rem; margin:44px 0 10px; padding-top:14px; border-top:1px solid var(--rule) }
h3 { font-size:1rem; margin:26px 0 6px }
p { margin:6px 0 12px; max-width:76ch }
a { color:var(--c0) }
.note, figcaption + p { color:var(--quiet); font-size:.87rem }
.lead { color:var(--quiet); margin-top:0; overflow-wrap:anywhere }
nav ul { display:flex; flex-wrap:wrap; gap:4px 16px; padding:0; margin:18px 0 0; list-style:none;
  font-size:.87rem }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:10px;
  margin:22px 0 8px; padding:0; list-style:none }
.tiles li { background:var(--panel); border-radius:8px; padding:11px 14px; min-width:0 }
.tiles b { display:block; font-size:1.5rem; line-height:1.25; font-weight:650;
  font-variant-numeric:tabular-nums; overflow-wrap:anywhere }
.tiles span { display:block; color:var(--quiet); font-size:.82rem; overflow-wrap:anywhere }
.hints { list-style:none; margin:16px 0 0; padding:0 }
.hints li { background:var(--warn); border-left:4px solid var(--warn-rule); padding:8px 14px;
  margin:6px 0; border-radius:0 6px 6px 0; overflow-wrap:anywhere }
.scroll { overflow-x:auto; margin:10px 0 18px; max-width:100% }
.scroll:focus-visible { outline:2px solid var(--c0); outline-offset:2px }
table { border-collapse:collapse; font-size:.89rem }
caption { text-align:left; font-weight:600; padding:4px 0 6px; caption-side:top }
th, td { text-align:left; vertical-align:top; padding:5px 12px 5px 0;
  border-bottom:1px solid var(--grid) }
thead th { color:var(--quiet); font-weight:600; border-bottom:1px solid var(--rule);
  white-space:nowrap }
tbody th { font-weight:500 }
th.number, td.number { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap }
table.texts { width:100% }
table.texts caption { position:absolute; width:1px; height:1px; overflow:hidden;
  clip-path:inset(50%) }
.beside { display:flex; flex-wrap:wrap; gap:0 56px; align-items:flex-start }
.beside > * { min-width:0; max-width:100% } .beside > .charts { flex:1 1 320px }
.side { display:block; color:var(--quiet); font-size:.8rem; margin-top:4px }
table.texts th[scope=row] { min-width:230px; max-width:640px; overflow-wrap:anywhere;
  font-weight:400; white-space:pre-line }
table.texts td { overflow-wrap:break-word; min-width:56px; max-width:260px }
table.matrix { border-collapse:separate; border-spacing:2px }
table.matrix td { text-align:right; padding:6px 12px; border:0; min-width:52px; border-radius:4px;
  background:rgb(var(--heat) / var(--heat-share,0)); font-variant-numeric:tabular-nums }
table.matrix th { border:0; max-width:170px; overflow-wrap:break-word; white-space:normal }
table.matrix thead th { text-align:right; padding-right:12px }
td.best { font-weight:700 }
td.best::after { content:" ✓"; color:var(--c2) }
dl { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr)); gap:2px 28px;
  margin:8px 0 }
dl div { display:flex; justify-content:space-between; gap:14px; padding:4px 0; min-width:0;
  border-bottom:1px solid var(--grid) }
dt { color:var(--quiet) }
dd { margin:0; text-align:right; overflow-wrap:anywhere; min-width:0;
  font-variant-numeric:tabular-nums }
code, pre { font:.85rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace }
pre { background:var(--panel); border-radius:8px; padding:11px 14px; white-space:pre-wrap;
  overflow-wrap:anywhere; margin:8px 0 }
td code, dd code { overflow-wrap:anywhere }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));
  gap:20px 24px; align-items:start }
figure { margin:6px 0 0; max-width:460px; min-width:0 }
figcaption { font-weight:600; font-size:.89rem; margin-bottom:4px }
svg { display:block; width:100%; height:auto }
svg text { fill:var(--quiet); font-size:11.5px }
svg text.middle { text-anchor:middle } svg text.end { text-anchor:end }
svg.small { width:120px; height:18px }
.grid { stroke:var(--grid) } .axis { stroke:var(--quiet) } .grid, .axis { fill:none }
.line { fill:none; stroke-width:2; stroke-linejoin:round }
.diagonal { stroke:var(--quiet); stroke-dasharray:4 4; fill:none }
.bar { fill:var(--c0) }
.mean { stroke:var(--c1); stroke-width:2.5; fill:none }
.track { stroke:var(--rule); stroke-width:2 } .range { stroke:var(--c0); stroke-width:5;
  stroke-opacity:.45 } .baseline { stroke:var(--c1); stroke-width:2.5 }
.faint { fill-opacity:.45 }
.line.s0 { stroke:var(--c0) } .line.s1 { stroke:var(--c1); stroke-dasharray:7 3 }
.line.s2 { stroke:var(--c2); stroke-dasharray:2 3 } .line.s3 { stroke:var(--c3);
  stroke-dasharray:10 3 2 3 } .line.s4 { stroke:var(--c4); stroke-dasharray:5 2 }
.line.s5 { stroke:var(--c5); stroke-dasharray:1 2 }
.dot.s0 { fill:var(--c0) } .dot.s1 { fill:var(--c1) } .dot.s2 { fill:var(--c2) }
.dot.s3 { fill:var(--c3) } .dot.s4 { fill:var(--c4) } .dot.s5 { fill:var(--c5) }
.legend { display:flex; flex-wrap:wrap; gap:2px 16px; list-style:none; padding:0; margin:4px 0 0;
  font-size:.85rem }
.legend li { min-width:0; overflow-wrap:anywhere }
.key { display:inline-block; width:22px; border-top:3px solid; vertical-align:middle;
  margin-right:6px }
.key.s0 { color:var(--c0) } .key.s1 { color:var(--c1); border-top-style:dashed }
.key.s2 { color:var(--c2); border-top-style:dotted } .key.s3 { color:var(--c3);
  border-top-style:dashed } .key.s4 { color:var(--c4); border-top-style:dashed }
.key.s5 { color:var(--c5); border-top-style:dotted }
mark { border-radius:4px; padding:1px 4px; text-decoration-thickness:2px }
mark.right { background:var(--right); color:var(--right-ink) }
mark.wrong { background:var(--wrong); color:var(--wrong-ink); text-decoration:underline wavy }
mark.missed { background:var(--both); color:var(--both-ink); text-decoration:underline dashed }
mark small { font-size:.74em; font-weight:650; margin-inline-start:.45em }
.sentence { display:block; margin:2px 0 }
"""
"""What is on a page, or in the output of a notebook."""

COLORS = f"""
:root {{ {LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
"""The variables of a page."""

STYLE = f"""{COLORS}body {{ margin:0; background:var(--ground); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif }}
main {{ max-width:1180px; margin:0 auto; padding:28px 20px 64px }}
{CONTENT}@media (max-width:560px) {{ main {{ padding:18px 14px 48px }} h1 {{ font-size:1.35rem }}
  table.texts th[scope=row] {{ min-width:200px }} svg text {{ font-size:12.5px }} }}
@media print {{ :root {{ --ground:#fff; --ink:#000; --panel:#f3f3f3; --quiet:#444 }}
  main {{ max-width:none; padding:0 }} nav {{ display:none }} .scroll {{ overflow:visible }}
  section {{ break-inside:auto }} figure, tr, .tiles li {{ break-inside:avoid }}
  * {{ print-color-adjust:exact; -webkit-print-color-adjust:exact }} }}
"""

IN_A_NOTEBOOK = f"""
.flaxbert {{ {LIGHT} }}
[data-jp-theme-light="false"] .flaxbert, .vscode-dark .flaxbert, [theme="dark"] .flaxbert {{
  {DARK} }}
.flaxbert.flaxbert {{ background:var(--ground); color:var(--ink); padding:12px 16px;
  border-radius:8px; max-width:1180px;
  font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
  {CONTENT}
  h2 {{ margin:0; padding:0; border:0; font-weight:650 }}
  h3 {{ font-weight:600 }}
  table {{ table-layout:auto; margin:0 }} tbody tr {{ background:none }} }}
"""
"""The style of the class `flaxbert`, and of nothing else in the notebook: the rules are nested. It
follows the themes of JupyterLab, VS Code and Colab. The class is doubled to come before the rules
that JupyterLab has for all outputs."""
