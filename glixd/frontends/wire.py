# SPDX-License-Identifier: GPL-3.0-or-later
"""What both front-ends need to turn people and errors into what is sent: one sentence, one code, no traceback."""

from __future__ import annotations

import functools
import pwd

from glixd.errors import Failed, GlixError
from glixd.log import get_logger
from glixd.protocol import ErrorCode

log = get_logger()


def explained(error: Exception, operation: str) -> GlixError:
    """What a caller is told about `error`: itself when it was meant for callers, a plain Internal otherwise.

    An unexpected exception is a defect: the journal gets all of it, the caller learns that it happened and no more.
    """
    if isinstance(error, GlixError):
        return error
    log.error("defect", operation=operation, exc_info=error)
    return Failed(
        f"{operation} met a defect of glixd.", code=ErrorCode.INTERNAL, hint="The journal of glixd has the details."
    )


@functools.lru_cache(maxsize=256)
def login(uid: int) -> str:
    """The login name of a uid, or the number itself where the machine knows no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
