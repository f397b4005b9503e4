"""The hallucination report: what changed between checkpoints, how sure that is, and what it cost.

svg.py             small charts as SVG text

Inside:

stage.py           `align report`
recipe.py          its keys
margins.py         how much of each thing may be lost
compare.py         `align report --compare RUN RUN ...`
load.py            what the report is made from
source.py          from a score folder back to the answers
metric.py          one line of the results, and its names for readers
verdict.py         the verdict in plain words
findings.py        what it rests on
guards.py          what must hold while inventions fall
headline.py        what happened, and every guard that broke
unasked.py         what changed most that nobody asked for
ngrams.py          words and phrases taken up or dropped
captions.py        what mentions say beyond the published rates
inventions.py      what an answer says that is not there
worse_captions.py  what a mean hides
flips.py           right then wrong, and the other way round
examples.py        drawn at random within groups
sides.py           what judge and pairs said of themselves
provenance.py      where the numbers come from
table.py           the main table, tiles, health
wording.py         numbers as the report writes them
text.py            model text made safe to show
build.py           loaded results -> the three files
markdown.py        report.md
page.py            report.html
plots/             one chart a file
"""
