# SPDX-License-Identifier: GPL-3.0-or-later
"""glixctl, the command-line client of glixd."""
