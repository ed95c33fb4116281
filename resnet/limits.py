"""What the owner of this program allows, here and nowhere else."""

WORK_BYTES = 4_000_000_000  # of memory that all work inside the app may take at one time
RESULT_BYTES = 200_000_000  # of results that are kept for whoever asks the same again
FILE_BYTES = 4_000_000_000  # of the disk, for exported files and uploaded weights
UNASKED_S, UNASKED_BYTES = 1.5, 1_000_000_000  # a page computes no more than that without a click
MAX_BATCH = 65_536  # images of a step whose costs are asked for
PHOTO_MB, WEIGHTS_MB = 50, 1024  # of an upload; maxUploadSize in .streamlit/config.toml is the larger one
BROKEN_SHARE = 0.25  # of a data folder's pictures that may be unreadable, and are then left out; 0 refuses any
