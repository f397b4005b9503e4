"""The embedded world: icon scenes in COCO's categories whose truth is known exactly.

language.py      its captions

Inside:

stage.py         `align scenes`
render.py        a seed -> a picture and its truth
questions.py     its questions
coco_files.py    both in COCO's and VQA's formats
categories.py    what is in it
colours.py       how colours are told apart
draw_sprites.py  how the icons were made
"""
