# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests: from what a caller said to a request in which nothing is left to look up, one maker for each mutation."""
