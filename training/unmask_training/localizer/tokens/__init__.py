"""The localizer `clip_vit_b16-seg`: a small head on the patch tokens of CLIP's frozen tower."""
