"""Figures that others published, printed beside ours: other data, other networks, the same questions."""

from __future__ import annotations

from typing import Final

# Petrželková & Čech, Detection of Synthetic Face Images: Accuracy, Robustness, Generalization, GCPR 2025, arXiv:2406.17547
# (and her thesis, Synthetic Image Detection, CTU Prague): a ResNet-50 trained on one generator is near perfect on it and
# does not carry over to generators that it has not seen.  Wu et al., Few-Shot Learner Generalizes Across AI-Generated Image
# Detection, ICML 2025, arXiv:2501.08763: 84.1 % on GenImage, mean over generators left out, with 10 samples of each.
SOURCE_MATRIX: Final = (
    "Published (words only): a ResNet-50 trained on one face generator is near perfect on it and near chance on unseen ones "
    "(Petrželková & Čech, GCPR 2025, arXiv:2406.17547)."
)
# The two anchors are those of the project's targets; where they were first published could not be checked.
ANCHOR_MATRIX: Final = "Anchor (of the project's targets): accuracy on known generators 100, 100, 80, 100 and 94 %."
ANCHOR_LEFT_OUT: Final = "Anchor (of the project's targets): a generator left out whose siblings are known, 66 % called fake."
FEW_SHOT_PERCENT: Final = 84.1
SOURCE_FEW_SHOT: Final = (
    "Published: FSD reaches 84.1 % on GenImage with 10 samples of the generator left out (Wu et al., ICML 2025, "
    "arXiv:2501.08763): any pictures, not faces."
)
