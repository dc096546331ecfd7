# SPDX-License-Identifier: GPL-3.0-or-later
"""From a name to a package: one file per source."""
