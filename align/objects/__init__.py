"""COCO's 80 objects: as annotations hold them, and as texts name them.

mentions.py  which objects a text names, and where: the vocabulary of CHAIR, POPE and the claims judge
plurals.py   English singulars and plurals
coco.py      COCO-format and VQAv2-format annotation files, every fault named
"""
