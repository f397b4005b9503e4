"""The embedded world: icon scenes in COCO's categories whose truth is known exactly."""
