# SPDX-License-Identifier: GPL-3.0-or-later
"""The activator: the program of root that makes a built system the running one. It imports nothing else of glixd."""
