"""Instruction rows and description prompts, from annotations and through a model.

Inside:

stage.py          `align instructions`
recipe.py         which sources, in which shares
sources.py        the rows of every source
vqa.py            VQAv2-format questions, COCO captions
gqa.py            GQA's questions as dialogues
templates.py      COCO instances through templates
conversations.py  conversations that a model writes from captions
caps.py           how often one image or kind may occur
"""
