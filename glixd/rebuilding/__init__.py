# SPDX-License-Identifier: GPL-3.0-or-later
"""From a commit to the running system: build, compare, activate, remember the generation; and the generations there are."""
