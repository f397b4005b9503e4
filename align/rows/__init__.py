"""The rows that stages exchange, and their files.

schema.py      `SFTRow`, `PreferenceRow`, `Prediction`, ...: checked at every border, read and written
messages.py    a turn, and where its pictures stand
thoughts.py    what a model thinks, told from its answer
writing.py     rows to disk one by one, in memory that does not grow
lines.py       lines of JSON as values, or as the errors that they are
columns.py     Arrow's rows as values, or as the errors that they are
parts.py       a file in parts that can be read apart, and in order again
foreign.py     files of other tools: told from ours, and who reads them
kinds.py       which of our rows a file holds
words.py       the words of a text in any script
quarantine.py  rows that could not be used, with place, reason and content
tally.py       what was kept and dropped, by reason
"""
