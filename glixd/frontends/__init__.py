# SPDX-License-Identifier: GPL-3.0-or-later
"""Who talks to us: one file per transport."""
