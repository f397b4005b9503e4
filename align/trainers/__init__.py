"""Trainers that compute what TRL's do, with less work.

Nothing here knows of files: stages read rows and write folders, trainers train.
"""
