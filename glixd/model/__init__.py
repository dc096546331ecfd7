# SPDX-License-Identifier: GPL-3.0-or-later
"""Values: what is known of manifests, references and flakes, with no input or output."""
