# SPDX-License-Identifier: GPL-3.0-or-later
"""The world: one file per outside thing."""
