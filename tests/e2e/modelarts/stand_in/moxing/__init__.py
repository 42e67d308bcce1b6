"""A stand-in for ModelArts' library: obs://bucket/name is the file bucket/name below the folder $STAND_IN_OBS."""
from moxing import file  # noqa: F401
