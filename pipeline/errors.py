"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something that the user can put right.

    The message is one sentence that names the file or the key and what to do.
    A stage prints it without a traceback and exits with status 1.
    """
