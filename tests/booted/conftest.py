# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in `inside/` runs in the machine and not here."""

from __future__ import annotations

collect_ignore = ["inside"]
