"""Rows of training data that a benchmark also has: found, named, taken out.

perceptual.py  hashes of how a picture looks
sketch.py      a second look at what is near
shingles.py    texts that nearly repeat another

Inside:

stage.py       `align decontaminate`
hash_store.py  hashes by bytes, so that no picture is hashed twice
hash_list.py   a benchmark as hashes that may be shared
matches.py     same bytes, same pixels, or the same to look at
"""
