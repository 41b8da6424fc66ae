"""The other processes of one training: those that do a share of it, and those that compile for it.

It only hands them over together; what they do is `share`'s and `cache_filler`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from shammah_trainer.cache_filler import CacheFiller
from shammah_trainer.share import ALONE, Share


@dataclass(frozen=True, slots=True)
class Processes:
    """`share`: what of the work is this process' own, when several train together.

    `filler`: processes that compile, begun ahead (`fill_ahead`); without them a training begins its own. Whoever began
    them closes them too, in case the training does not come that far.
    """

    share: Share = ALONE
    filler: CacheFiller | None = None


BY_ITSELF = Processes()
