# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract with every caller: the table of operations, and the words, parameters and results that it is made of."""

from __future__ import annotations

from glixd.api.caller import *
from glixd.api.forms import *
from glixd.api.grammar import *
from glixd.api.mutations import *
from glixd.api.parsing import *
from glixd.api.queries import *
from glixd.api.results import *
from glixd.api.table import *
