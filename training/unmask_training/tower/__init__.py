"""The detector on a frozen CLIP tower: measured once, its features kept, heads fitted in minutes."""
