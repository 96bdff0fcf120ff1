"""The errors a user can meet: each message names what is wrong, where, the rule, the value, and what to do."""


class TflensError(ValueError):
    """Base of every error that is the caller's to mend; the command line prints its message without a traceback."""


class ObservationError(TflensError):
    """An image, noise map, PSF, mask or header that cannot be right."""


class ParameterError(TflensError):
    """A parameter, prior or option outside its rule."""


class SavedModelError(TflensError):
    """A trained model that is missing, incomplete or of another form."""


class StorageError(ParameterError):
    """A folder that cannot be written to, or a disk that is full: what is finished is kept, nothing else can be."""
