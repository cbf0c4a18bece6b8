"""The one kind of error that a user's input can cause."""


class InputError(ValueError):
    """Something handed in is wrong: an image, a box, a mask, a file, an option.

    The message is one line that names what is wrong and what would mend it.
    The command line prints it and exits with code 2; it never shows a traceback for it.
    """
