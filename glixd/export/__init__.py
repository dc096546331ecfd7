# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of the repository in /etc/glixos: a program of root's that follows the branch and never anything but forwards."""
