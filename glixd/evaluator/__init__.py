# SPDX-License-Identifier: GPL-3.0-or-later
"""The evaluator: a program that locks, evaluates and builds with a uid of its own. It imports nothing else of glixd."""
