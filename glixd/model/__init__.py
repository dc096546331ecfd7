# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that glixd works with: manifests, references, the generated flake. No I/O, no clock, no bus."""
